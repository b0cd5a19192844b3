-- Which trainings did a task ask for or decline, how do they stand, and how many train pairs had each request seen?
-- cost_usd is -1 where the run did not say, train_pairs where the request did not say (a training by hand).
SELECT
    job_id,
    min(at) AS requested_at,
    max(at) AS updated_at,
    -- at one instant the later step of a job's life counts
    argMax(step_state, (at, indexOf(['requested', 'started', 'progress'], step_state) = 0, step_state != 'requested'))
        AS state,
    argMin(step_trigger, at) AS trigger,
    maxIf(if(mapContains(metrics, 'train_pairs'), metrics['train_pairs'], -1), step_state IN ('requested', 'declined'))
        AS train_pairs,
    max(JSONExtractString(params, 'code')) AS code,
    max(JSONExtractString(params, 'scheduled_at')) AS scheduled_at,
    toString(max(about)) AS alert_id,
    -- from its start to the last word of it: a run that was killed was paid for, too
    if(countIf(step_state = 'started') = 0, 0, dateDiff('second', minIf(at, step_state = 'started'), max(at))) AS seconds,
    max(if(mapContains(metrics, 'cost_usd'), metrics['cost_usd'], -1)) AS cost_usd
FROM
(
    SELECT job_id, at, state AS step_state, trigger AS step_trigger, metrics, params, alert_id AS about
    FROM ratchet.training_events
    WHERE task = {task:String}
)
GROUP BY job_id
ORDER BY requested_at, job_id
