-- Every pointwise score of these answers, by whichever judge and rubric, whole.
SELECT *
FROM ratchet.scores
WHERE task = {task:String} AND kind = 'pointwise' AND target_id IN {ids:Array(UUID)}
ORDER BY target_id, id
