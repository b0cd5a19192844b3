-- What became of one training job?
SELECT task, toString(job_id) AS job_id, started_at, updated_at, state, method, trigger, reason, dataset, adapter, metrics
FROM ratchet.training_runs
WHERE job_id = {job_id:UUID}
