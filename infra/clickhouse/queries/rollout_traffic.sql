-- What is a task's production traffic like: how much of it, by how many, how often it fails, how much is said of it, and
-- how late? Cancelled calls say nothing. Feedback is the last word on an answer; hours until then are the median's.
-- A check's verdicts count where completion is a check's ('' is none).
WITH
    calls AS
    (
        SELECT id, at, status, latency_ms, sticky
        FROM ratchet.inferences_log FINAL
        WHERE task = {task:String} AND status != 'cancelled'
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    ),
    said AS
    (
        SELECT
            kind,
            if(inference_id IS NULL, conversation_id, toString(inference_id)) AS target,
            any(assumeNotNull(inference_id)) AS call_id,
            argMax(assumeNotNull(number), at) AS value,
            min(at) AS first_at
        FROM ratchet.feedback
        WHERE task = {task:String} AND kind IN ('thumb', 'outcome') AND number IS NOT NULL
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        GROUP BY kind, target
    )
SELECT *
FROM
    (
        SELECT
            count() AS requests,
            min(at) AS first_at,
            countIf(status IN ('error', 'timeout')) AS errors,
            countIf(status = 'ok' AND latency_ms > 0) AS timed,
            quantileIf(0.5)(latency_ms, status = 'ok' AND latency_ms > 0) AS p50_ms,
            quantileIf(0.95)(latency_ms, status = 'ok' AND latency_ms > 0) AS p95_ms
        FROM calls
    ) AS of_calls,
    (
        SELECT count() AS users, sum(n * n) AS squares FROM (SELECT count() AS n FROM calls GROUP BY sticky)
    ) AS of_users,
    (
        SELECT
            countIf(kind = 'thumb') AS thumbs,
            sumIf(value, kind = 'thumb') AS thumbs_up,
            countIf(kind = 'outcome') AS outcomes,
            sumIf(value, kind = 'outcome') AS completed
        FROM said
    ) AS of_feedback,
    (
        SELECT quantile(0.5)(dateDiff('second', calls.at, said.first_at)) / 3600 AS delay_h
        FROM said INNER JOIN calls ON said.call_id = calls.id
    ) AS of_delays,
    (
        SELECT
            countIf(score IS NOT NULL) AS checked,
            sumIf(multiIf(verdict = 'pass', 1., verdict = 'fail', 0., assumeNotNull(score)), score IS NOT NULL) AS passed
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'check' AND rubric = {check:String} AND target = 'inference'
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    ) AS of_checks
