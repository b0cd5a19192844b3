-- When were a task's anchors last scored, and when last tried?
SELECT maxIf(at, score IS NOT NULL) AS scored_at, max(at) AS tried_at, count() AS n
FROM ratchet.anchor_scores
WHERE task = {task:String} AND target_id IN {ids:Array(UUID)} AND at >= {since:DateTime64(6, 'UTC')}
