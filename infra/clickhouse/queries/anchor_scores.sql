-- What did each judge first say of these anchors since they were frozen, and what in its last run over them? (Abstentions are no scores;
-- a run is all that was scored at one instant.)
WITH runs AS
(
    SELECT *, max(at) OVER (PARTITION BY judge, rubric, rubric_hash) AS last_run
    FROM ratchet.anchor_scores
    WHERE task = {task:String} AND target_id IN {ids:Array(UUID)} AND score IS NOT NULL
      AND at >= {since:DateTime64(6, 'UTC')}
)
SELECT
    judge,
    rubric,
    rubric_hash,
    toString(target_id) AS anchor,
    argMin(assumeNotNull(score), at) AS first_score,
    min(at) AS frozen_at,
    anyIf(score, at = last_run) AS last_score,
    any(last_run) AS last_at
FROM runs
GROUP BY judge, rubric, rubric_hash, target_id
ORDER BY judge, rubric, rubric_hash, target_id
