-- What did each judge say of a task's answers since an instant, of those that people labelled and of the others?
-- Sums over the score f and over the indicator of a good score (0.5 or more), weighted by inverse inclusion probability.
WITH
    labels AS
    (
        SELECT assumeNotNull(inference_id) AS target_id
        FROM ratchet.feedback
        WHERE task = {task:String} AND inference_id IS NOT NULL AND kind IN ('thumb', 'outcome', 'rating', 'correction')
          AND at >= {labelled_since:DateTime64(6, 'UTC')}
        UNION DISTINCT
        SELECT target_id FROM ratchet.labels WHERE task = {task:String} AND at >= {labelled_since:DateTime64(6, 'UTC')}
    ),
    judged AS
    (
        SELECT
            judge,
            rubric,
            rubric_hash,
            target_id,
            argMax(assumeNotNull(score), (at, id)) AS f,
            argMax(1 / inclusion_probability, (at, id)) AS w
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'pointwise' AND target = 'inference' AND score IS NOT NULL
          AND at >= {since:DateTime64(6, 'UTC')}
        GROUP BY judge, rubric, rubric_hash, target_id
    )
SELECT
    judge,
    rubric,
    rubric_hash,
    target_id IN (SELECT target_id FROM labels) AS labelled,
    count() AS n,
    sum(w) AS sum_w,
    sum(w * w) AS sum_ww,
    sum(w * f) AS sum_wf,
    sum(w * w * f) AS sum_wwf,
    sum(w * w * f * f) AS sum_wwff,
    sumIf(w, f >= 0.5) AS good_w,
    sumIf(w * w, f >= 0.5) AS good_ww
FROM judged
GROUP BY judge, rubric, rubric_hash, labelled
ORDER BY judge, rubric, rubric_hash, labelled
