-- How far is a training job?
SELECT step, steps, metrics
FROM ratchet.training_events
WHERE job_id = {job_id:UUID} AND state = 'progress'
ORDER BY at DESC
LIMIT 1
