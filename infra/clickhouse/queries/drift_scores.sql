-- What did each version of a judge (or a check) say of a task's production answers, in a baseline and in a window?
-- Each score counts as often as its inclusion probability says that it stands for; n is Kish's effective number.
SELECT
    judge,
    rubric,
    rubric_hash,
    hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')} AS now,
    max(hour) AS last_hour,
    sum(hourly.n - hourly.abstained) AS scored,
    pow(sum(hourly.weights), 2) / sum(hourly.weights_squares) AS n,
    sum(hourly.weighted_total) / sum(hourly.weights) AS mean,
    greatest(0, sum(hourly.weighted_squares) / sum(hourly.weights) - mean * mean) AS variance
FROM ratchet.hourly_scores AS hourly
WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
  AND target = 'inference' AND kind = {kind:String} AND ({rubric:String} = '' OR rubric = {rubric:String})
  AND ((hour >= {base_since:DateTime64(6, 'UTC')} AND hour < {base_until:DateTime64(6, 'UTC')})
    OR (hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}))
GROUP BY judge, rubric, rubric_hash, now
HAVING sum(hourly.weights) > 0
ORDER BY judge, rubric, rubric_hash, now
