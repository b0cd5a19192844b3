-- A metric of a task's production traffic, hour by hour: how many observations, their sum and the sum of their squares.
SELECT
    hour,
    sum(observed) AS n,
    sum(value_added) AS added,
    sum(value_squared) AS squared
FROM
(
    SELECT
        hour,
        multiIf(
            {metric:String} = 'errors', toUInt64(n - cancelled),
            {metric:String} = 'prompt_length', prompts,
            {metric:String} = 'latency', timed,
            {metric:String} = 'cost', priced,
            answers
        ) AS observed,
        toFloat64(multiIf(
            {metric:String} = 'errors', errors,
            {metric:String} = 'refusals', refusals,
            {metric:String} = 'uncertainty', uncertain,
            {metric:String} = 'answer_length', answer_characters,
            {metric:String} = 'prompt_length', prompt_characters,
            {metric:String} = 'latency', latency_total,
            {metric:String} = 'cost', ifNull(cost_usd, 0),
            0
        )) AS value_added,
        multiIf(
            {metric:String} = 'answer_length', answer_squares,
            {metric:String} = 'prompt_length', prompt_squares,
            {metric:String} = 'latency', latency_squares,
            {metric:String} = 'cost', cost_squares,
            value_added
        ) AS value_squared
    FROM ratchet.hourly
    WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
      AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
)
GROUP BY hour
HAVING n > 0
ORDER BY hour
