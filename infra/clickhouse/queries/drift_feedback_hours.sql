-- How often people said yes (thumbs, outcomes), hour by hour; of one adapter as in drift_feedback.sql.
SELECT
    hour,
    sum(if({adapter:String} = '', numbers, adapter_numbers[{adapter:String}])) AS n,
    sum(if({adapter:String} = '', total, adapter_totals[{adapter:String}])) AS added,
    sum(if({adapter:String} = '', squares, adapter_squares[{adapter:String}])) AS squared
FROM ratchet.hourly_feedback
WHERE task = {task:String} AND kind = {kind:String}
  AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
GROUP BY hour
HAVING n > 0
ORDER BY hour
