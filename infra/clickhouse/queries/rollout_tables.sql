-- Every routing table of a task up to an instant, oldest first.
SELECT state FROM ratchet.rollouts
WHERE task = {task:String} AND at <= {until:DateTime64(6, 'UTC')}
ORDER BY version, at
