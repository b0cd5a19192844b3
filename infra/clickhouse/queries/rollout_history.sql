-- Every routing table that one rollout went through, oldest first.
SELECT state FROM ratchet.rollouts
WHERE task = {task:String} AND rollout_id = {rollout_id:UUID}
ORDER BY version
