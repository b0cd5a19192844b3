-- How slow were both arms, by stage? With paired the arms are the copies and the requests that were mirrored.
-- A timeout counts as slow as it was; an error is not a latency.
SELECT
    arrayFirstIndex(
        (begin, end) -> at >= begin AND at < end,
        {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
    ) AS stage_number,
    candidate,
    count() AS rows,
    uniqExact(sticky) AS users,
    quantileExact(0.95)(latency_ms) AS p95_ms
FROM
(
    SELECT at, stage = 'canary' AS candidate, sticky, latency_ms
    FROM ratchet.inferences_log FINAL
    WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND status IN ('ok', 'timeout')
      AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))}) AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
      AND if(
          {paired:Bool},
          stage = 'stable' AND id IN
          (
              SELECT inference_id FROM ratchet.shadows_log
              WHERE {paired:Bool} AND task = {task:String} AND rollout_id = {rollout_id:UUID}
                AND adapter = {candidate:String}
          ),
          stage IN ('stable', 'canary')
      )
    UNION ALL
    SELECT at, true, sticky, latency_ms
    FROM ratchet.shadows_log FINAL
    WHERE {paired:Bool} AND task = {task:String} AND rollout_id = {rollout_id:UUID} AND adapter = {candidate:String}
      AND status IN ('ok', 'timeout')
      AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))}) AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
)
GROUP BY stage_number, candidate
HAVING stage_number > 0
