-- How many of a task's production answers passed each version of a check, in a baseline and in a window?
SELECT
    judge,
    rubric,
    rubric_hash,
    hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')} AS now,
    sum(hourly.passes) AS passed,
    sum(hourly.fails) AS failed
FROM ratchet.hourly_scores AS hourly
WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
  AND target = 'inference' AND kind = 'check' AND rubric = {rubric:String}
  AND ((hour >= {base_since:DateTime64(6, 'UTC')} AND hour < {base_until:DateTime64(6, 'UTC')})
    OR (hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}))
GROUP BY judge, rubric, rubric_hash, now
HAVING passed + failed > 0
ORDER BY judge, rubric, rubric_hash, now
