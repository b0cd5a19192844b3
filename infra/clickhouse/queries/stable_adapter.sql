-- The adapter that a task's routing table serves now.
SELECT stable
FROM ratchet.rollouts
WHERE task = {task:String}
ORDER BY version DESC, at DESC
LIMIT 1
