-- What a judge (or a check) said of a task's production answers, hour by hour, weighted as in drift_scores.sql: of the
-- version that scored the most in the last day that has scores, since two versions' hours do not compare.
WITH scored AS
(
    SELECT
        hour, judge, rubric, rubric_hash,
        sum(hourly.weights) AS weights,
        sum(hourly.weights_squares) AS weights_squares,
        sum(hourly.weighted_total) AS total,
        sum(hourly.weighted_squares) AS squares
    FROM ratchet.hourly_scores AS hourly
    WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
      AND target = 'inference' AND kind = {kind:String} AND ({rubric:String} = '' OR rubric = {rubric:String})
      AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
    GROUP BY hour, judge, rubric, rubric_hash
    HAVING weights > 0
)
SELECT
    hour,
    weights * weights / weights_squares AS n,
    total / weights AS mean,
    greatest(0, squares / weights - mean * mean) AS variance
FROM scored
WHERE (judge, rubric, rubric_hash) IN
(
    SELECT judge, rubric, rubric_hash
    FROM scored
    WHERE hour > (SELECT max(hour) FROM scored) - INTERVAL 1 DAY
    GROUP BY judge, rubric, rubric_hash
    ORDER BY sum(weights) DESC, judge, rubric, rubric_hash
    LIMIT 1
)
ORDER BY hour
