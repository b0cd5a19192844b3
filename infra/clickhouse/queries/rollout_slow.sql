-- How many of the candidate's calls took longer than their stage's threshold, clustered by user (as rollout_calls.sql)?
-- With paired its calls are the copies of mirrored requests.
WITH
    by_user AS
    (
        SELECT
            toUInt32(arrayFirstIndex(
                (begin, end) -> at >= begin AND at < end,
                {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
            )) AS stage_number,
            sticky,
            toFloat64(count()) AS n,
            toFloat64(countIf(latency_ms > {threshold_ms:Array(Float64)}[stage_number])) AS y
        FROM
        (
            SELECT at, sticky, latency_ms
            FROM ratchet.inferences_log FINAL
            WHERE NOT {paired:Bool} AND stage = 'canary'
              AND task = {task:String} AND rollout_id = {rollout_id:UUID} AND status IN ('ok', 'timeout')
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
            UNION ALL
            SELECT at, sticky, latency_ms
            FROM ratchet.shadows_log FINAL
            WHERE {paired:Bool} AND task = {task:String} AND rollout_id = {rollout_id:UUID}
              AND adapter = {candidate:String} AND status IN ('ok', 'timeout')
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
        )
        GROUP BY stage_number, sticky
        HAVING stage_number > 0
    )
SELECT
    stage_number,
    count() AS users,
    sum(n) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    0 AS abstained
FROM by_user
GROUP BY stage_number
