-- Did anybody cancel this training job, and with what words?
SELECT reason
FROM ratchet.training_events
WHERE task = {task:String} AND job_id = {job_id:UUID} AND state = 'cancelled'
ORDER BY at
LIMIT 1
