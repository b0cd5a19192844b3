-- What did both arms of a rollout's present stage get: how many calls, of how many sticky keys, and how many of the last
-- seconds' calls failed? Mirrored copies are the candidate's calls, and nobody's sticky key. Keys count from `settled`
-- until `ended`, whatever became of their calls; of cancelled calls nothing else counts. A call is recent by its end: one
-- that timed out began long before anybody knew.
SELECT
    candidate,
    countIf(status != 'cancelled') AS calls,
    uniqExactIf(
        sticky, routed AND at >= {settled:DateTime64(6, 'UTC')} AND at < {ended:DateTime64(6, 'UTC')}
    ) AS keys,
    countIf(recent AND status != 'cancelled') AS recent_calls,
    countIf(recent AND status IN ('error', 'timeout')) AS recent_failures
FROM
(
    SELECT
        stage = 'canary' AS candidate,
        true AS routed,
        sticky,
        at,
        status,
        toUnixTimestamp64Micro(at) + 1000 * latency_ms >= toUnixTimestamp64Micro({recently:DateTime64(6, 'UTC')}) AS recent
    FROM ratchet.inferences_log FINAL
    WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND stage IN ('stable', 'canary')
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT
        true,
        false,
        sticky,
        at,
        status,
        toUnixTimestamp64Micro(at) + 1000 * latency_ms >= toUnixTimestamp64Micro({recently:DateTime64(6, 'UTC')})
    FROM ratchet.shadows_log FINAL
    WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND adapter = {candidate:String}
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
)
GROUP BY candidate
