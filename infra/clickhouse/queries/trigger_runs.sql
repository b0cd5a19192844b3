-- Which trainings did a task ask for or decline, how do they stand, and how many train pairs had each request seen?
-- train_pairs is -1 where the request did not say (a training by hand).
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
    toString(max(about)) AS alert_id
FROM
(
    SELECT job_id, at, state AS step_state, trigger AS step_trigger, metrics, params, alert_id AS about
    FROM ratchet.training_events
    WHERE task = {task:String}
)
GROUP BY job_id
ORDER BY requested_at, job_id
