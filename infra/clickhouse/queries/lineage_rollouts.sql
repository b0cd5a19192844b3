-- What became of an adapter: every routing table of its own rollouts, and each by which it began or ceased to serve.
SELECT
    at, version, toString(rollout_id) AS rollout_id, status, stage, stable, candidate,
    JSONExtractString(state, 'previous') AS previous, action, actor, reason
FROM ratchet.rollouts
WHERE task = {task:String}
  AND (candidate = {name:String}
       OR (action IN ('promote', 'undo') AND (stable = {name:String} OR previous = {name:String})))
ORDER BY version
