-- Which share of a task's production answers passed a check, hour by hour: by the version that checked the most in the
-- last day that has any, since two versions' hours do not compare.
WITH checked AS
(
    SELECT hour, rubric_hash, sum(hourly.passes) AS passed, sum(hourly.fails) AS failed
    FROM ratchet.hourly_scores AS hourly
    WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
      AND target = 'inference' AND kind = 'check' AND rubric = {rubric:String}
      AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
    GROUP BY hour, rubric_hash
    HAVING passed + failed > 0
)
SELECT hour, passed + failed AS n, passed AS added, passed AS squared
FROM checked
WHERE rubric_hash =
(
    SELECT rubric_hash
    FROM checked
    WHERE hour > (SELECT max(hour) FROM checked) - INTERVAL 1 DAY
    GROUP BY rubric_hash
    ORDER BY sum(passed + failed) DESC, rubric_hash
    LIMIT 1
)
ORDER BY hour
