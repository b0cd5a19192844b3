-- How often did people say yes (thumbs, outcomes), in a baseline and in a window, by the hour in which they said it?
-- Of one adapter: where they named an inference that is known.
SELECT
    hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')} AS now,
    sum(if({adapter:String} = '', numbers, adapter_numbers[{adapter:String}])) AS n,
    sum(if({adapter:String} = '', total, adapter_totals[{adapter:String}])) AS hits
FROM ratchet.hourly_feedback
WHERE task = {task:String} AND kind = {kind:String}
  AND ((hour >= {base_since:DateTime64(6, 'UTC')} AND hour < {base_until:DateTime64(6, 'UTC')})
    OR (hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}))
GROUP BY now
