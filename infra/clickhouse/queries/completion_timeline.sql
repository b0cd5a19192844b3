-- Which requests completed, in the order they came, and who answered them?
SELECT i.at AS at, i.adapter AS adapter, i.stage AS stage, s.score AS completed
FROM ratchet.inferences AS i
INNER JOIN
(
    SELECT target_id, score FROM ratchet.scores
    WHERE task = {task:String} AND kind = 'check' AND rubric = {check:String} AND target = 'inference'
) AS s ON s.target_id = i.id
WHERE i.task = {task:String} AND i.at >= {since:DateTime64(6, 'UTC')}
ORDER BY i.at
