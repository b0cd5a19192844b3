-- Mirrored requests as both adapters answered them: how often did each fail, what did a call cost, or how long were the
-- answers (metric as in rollout_calls.sql), and what is the difference, candidate less stable, request by request?
-- Clustered by user. Where a fallback answered the user, stable failed. Cost and length count where both have one.
WITH
    copies AS
    (
        SELECT
            inference_id,
            multiIf(
                {metric:String} = 'error_rate', toFloat64(status != 'ok'),
                {metric:String} = 'cost', cost_usd,
                {metric:String} = 'length' AND status = 'ok', toFloat64(lengthUTF8(content)),
                NULL
            ) AS new
        FROM ratchet.shadows_log FINAL
        WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND adapter = {candidate:String}
          AND status != 'cancelled'
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    ),
    served AS
    (
        SELECT
            id,
            sticky,
            multiIf(
                {metric:String} = 'error_rate', toFloat64(stage = 'fallback' OR status != 'ok'),
                stage = 'fallback', NULL,
                {metric:String} = 'cost', cost_usd,
                {metric:String} = 'length' AND status = 'ok', toFloat64(characters),
                NULL
            ) AS old
        FROM ratchet.inferences_log FINAL
        WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND status != 'cancelled'
          AND stage IN ('stable', 'fallback')
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
          AND id IN (SELECT inference_id FROM copies)
    ),
    by_user AS
    (
        SELECT
            sticky,
            toFloat64(count()) AS n,
            [sum(assumeNotNull(old)), sum(assumeNotNull(new)), sum(assumeNotNull(new - old))] AS y,
            [sum(assumeNotNull(old * old)), sum(assumeNotNull(new * new)), sum(assumeNotNull(pow(new - old, 2)))] AS y2
        FROM copies INNER JOIN served ON copies.inference_id = served.id
        WHERE old IS NOT NULL AND new IS NOT NULL
        GROUP BY sticky
    )
SELECT
    side,
    count() AS users,
    sum(n) AS rows,
    sum(n) AS weights,
    sum(total_of_user) AS total,
    sum(squares_of_user) AS squares,
    sum(total_of_user * total_of_user) AS yy,
    sum(total_of_user * n) AS yn,
    sum(n * n) AS nn,
    0 AS abstained
FROM by_user
ARRAY JOIN ['stable', 'candidate', 'difference'] AS side, y AS total_of_user, y2 AS squares_of_user
GROUP BY side
