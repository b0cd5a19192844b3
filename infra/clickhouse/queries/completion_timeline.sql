-- Which requests completed, in the order they came, and who answered them?
SELECT i.at AS at, i.adapter AS adapter, i.stage AS stage, s.completed AS completed
FROM ratchet.inferences AS i
INNER JOIN
(
    -- a check that abstained says nothing of completion
    SELECT target_id, if(verdict IN ('pass', 'fail'), toFloat64(verdict = 'pass'), assumeNotNull(score)) AS completed
    FROM ratchet.scores
    WHERE task = {task:String} AND kind = 'check' AND rubric = {check:String} AND target = 'inference'
      AND score IS NOT NULL
) AS s ON s.target_id = i.id
WHERE i.task = {task:String} AND i.at >= {since:DateTime64(6, 'UTC')}
ORDER BY i.at
