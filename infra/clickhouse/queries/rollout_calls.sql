-- How often did each arm fail, what did a call cost, or how long were the answers, by stage and clustered by user?
-- metric: 'error_rate', 'cost' (of calls that have one) or 'length' (in characters). Stages are numbered from 1 by their
-- bounds. Of each user y are the sum and n the number of values: the sums of y², yn and n² over users give the variance
-- of the mean (services/rules/rollouts/clustering.py). Cancelled calls say nothing.
WITH
    by_user AS
    (
        SELECT
            -- one small number: grouping by it is twice as fast as by two
            toUInt32(2 * arrayFirstIndex(
                (begin, end) -> at >= begin AND at < end,
                {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
            ) + (stage = 'canary')) AS stage_and_arm,
            sticky,
            toFloat64(count()) AS n,
            sum(value) AS y,
            sum(value * value) AS y2
        FROM
        (
            SELECT
                at,
                stage,
                sticky,
                multiIf(
                    {metric:String} = 'error_rate', toFloat64(status IN ('error', 'timeout')),
                    {metric:String} = 'cost', cost_usd,
                    {metric:String} = 'length' AND status = 'ok', toFloat64(characters),
                    NULL
                ) AS value
            FROM ratchet.inferences_log FINAL
            WHERE task = {task:String} AND rollout_id = {rollout_id:UUID}
              AND stage IN ('stable', 'canary') AND status != 'cancelled'
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
        )
        WHERE value IS NOT NULL
        GROUP BY stage_and_arm, sticky
        HAVING stage_and_arm > 1
    )
SELECT
    intDiv(stage_and_arm, 2) AS stage_number,
    stage_and_arm % 2 AS candidate,
    count() AS users,
    sum(n) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y2) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    0 AS abstained
FROM by_user
GROUP BY stage_and_arm
