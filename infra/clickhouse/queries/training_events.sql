-- What became of one training job, step by step?
SELECT task, at, state, trigger, method, reason, dataset, adapter, step, steps, metrics
FROM ratchet.training_events
WHERE job_id = {job_id:UUID}
ORDER BY at, step
