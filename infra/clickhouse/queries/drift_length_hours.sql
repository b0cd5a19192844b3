-- How long were a task's answers or prompts, hour by hour? Counts by the rollups' bins.
SELECT hour, sumMap(if({metric:String} = 'answer_length', hourly.answer_bins, hourly.prompt_bins)) AS bins
FROM ratchet.hourly AS hourly
WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
  AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
GROUP BY hour
HAVING notEmpty(bins)
ORDER BY hour
