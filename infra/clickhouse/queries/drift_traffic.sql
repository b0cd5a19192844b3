-- What do the hours of a task's production traffic come to, in a baseline (now = 0) and in a window (now = 1)?
-- ('' means every adapter.) Errors are of calls that nobody cancelled; every stage of the table served users.
SELECT
    hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')} AS now,
    sum(n - cancelled) AS calls,
    sum(hourly.errors) AS errors,
    sum(hourly.answers) AS answers,
    sum(hourly.answer_characters) AS answer_characters,
    sumMap(hourly.answer_bins) AS answer_bins,
    sum(hourly.refusals) AS refusals,
    sum(hourly.uncertain) AS uncertain,
    sum(hourly.prompts) AS prompts,
    sum(hourly.prompt_characters) AS prompt_characters,
    sumMap(hourly.prompt_bins) AS prompt_bins,
    sum(hourly.timed) AS timed,
    sum(hourly.latency_total) AS latency_total,
    sum(hourly.latency_squares) AS latency_squares,
    sumMap(hourly.latency_bins) AS latency_bins,
    sum(hourly.priced) AS priced,
    ifNull(sum(hourly.cost_usd), 0) AS cost_total,
    sum(hourly.cost_squares) AS cost_squares,
    sumMap(hourly.cost_bins) AS cost_bins
FROM ratchet.hourly AS hourly
WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
  AND ((hour >= {base_since:DateTime64(6, 'UTC')} AND hour < {base_until:DateTime64(6, 'UTC')})
    OR (hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}))
GROUP BY now
