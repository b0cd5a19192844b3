-- How often did one arm of a rollout fail, and how slow was it?
-- arm: 'stable' and 'canary' are production by the gateway's stage; 'shadow' is the candidate's answers
-- to mirrored requests, 'mirrored' those requests as production answered them (the pairs' other half).
-- A timeout counts as slow as it was; an error is not a latency. Cancelled calls say nothing.
WITH calls AS
(
    SELECT status, latency_ms FROM ratchet.inferences
    WHERE {arm:String} IN ('stable', 'canary') AND stage = {arm:String}
      AND task = {task:String} AND rollout_id = {rollout_id:UUID}
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT status, latency_ms FROM ratchet.shadows
    WHERE {arm:String} = 'shadow'
      AND task = {task:String} AND rollout_id = {rollout_id:UUID}
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    UNION ALL
    SELECT status, latency_ms FROM ratchet.inferences
    WHERE {arm:String} = 'mirrored' AND stage = 'stable'
      AND task = {task:String} AND rollout_id = {rollout_id:UUID}
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
      AND id IN
      (
          SELECT inference_id FROM ratchet.shadows
          WHERE {arm:String} = 'mirrored' AND task = {task:String} AND rollout_id = {rollout_id:UUID}
      )
)
SELECT
    countIf(status != 'cancelled') AS n,
    countIf(status IN ('error', 'timeout')) AS errors,
    countIf(status IN ('ok', 'timeout')) AS timed,
    quantileExactIf(0.95)(latency_ms, status IN ('ok', 'timeout')) AS p95_ms,
    countIf(status IN ('ok', 'timeout') AND latency_ms > {threshold_ms:Float64}) AS exceeded
FROM calls
