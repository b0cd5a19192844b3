-- Every decision of a task's rollouts of one candidate, in order, with the evidence it saw.
SELECT at, version, status, stage, stable, candidate, action, actor, reason, gates, state
FROM ratchet.rollouts
WHERE task = {task:String} AND candidate = {candidate:String}
ORDER BY version
