-- Which training jobs of a task (none named: of all) ran since an instant, the newest first?
SELECT task, toString(job_id) AS job_id, started_at, updated_at, state, method, trigger, reason, dataset, adapter, metrics
FROM ratchet.training_runs
WHERE (task = {task:String} OR {task:String} = '') AND started_at >= {since:DateTime64(6, 'UTC')} AND state != 'declined'
ORDER BY started_at DESC
LIMIT {most:UInt32}
