-- What did the judges say of these answers of a task?
SELECT
    judge,
    rubric,
    rubric_hash,
    toString(target_id) AS answer,
    argMax(assumeNotNull(score), (at, id)) AS said,
    argMax(inclusion_probability, (at, id)) AS probability
FROM ratchet.scores
WHERE task = {task:String} AND kind = 'pointwise' AND target = 'inference' AND score IS NOT NULL
  AND target_id IN {ids:Array(UUID)}
GROUP BY judge, rubric, rubric_hash, target_id
ORDER BY judge, rubric, rubric_hash, target_id
