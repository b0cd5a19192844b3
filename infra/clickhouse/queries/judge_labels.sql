-- What did each judge say of the answers that people labelled since an instant, in how many words?
-- People's word on an answer: what an expert said of it (a label), else the mean of its thumbs, outcomes, ratings and
-- corrections (a correction says 0). Rows are the cells of Cell (consumers/rules/rollouts/standing.py): grades 0 to 4 of score
-- and label, good or not, and the weighted sums over label y and score f. Labels given before the instant count as
-- expired. nth_at: when the min_labels-th newest label that says good or bad was given, where it is in this cell.
WITH
    people AS
    (
        SELECT inference_id AS target_id, avg(multiIf(kind = 'correction', 0., number)) AS label, max(at) AS said_at, 0 AS rank
        FROM ratchet.feedback
        WHERE task = {task:String} AND inference_id IS NOT NULL AND kind IN ('thumb', 'outcome', 'rating', 'correction')
        GROUP BY inference_id
        UNION ALL
        SELECT target_id, argMax(assumeNotNull(score), at) AS label, max(at) AS said_at, 1 AS rank
        FROM ratchet.labels
        WHERE task = {task:String} AND score IS NOT NULL
        GROUP BY target_id
    ),
    labels AS
    (
        SELECT target_id, argMax(label, rank) AS y, argMax(said_at, rank) AS labelled_at
        FROM people
        GROUP BY target_id
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
          AND target_id IN (SELECT target_id FROM labels)
        GROUP BY judge, rubric, rubric_hash, target_id
    ),
    both AS
    (
        SELECT
            judge,
            rubric,
            rubric_hash,
            f,
            w,
            y,
            labelled_at,
            labelled_at < {since:DateTime64(6, 'UTC')} AS expired,
            row_number() OVER (PARTITION BY judge, rubric, rubric_hash, expired, y = 0.5 ORDER BY labelled_at DESC) AS nth
        FROM judged
        INNER JOIN labels ON judged.target_id = labels.target_id
    )
SELECT
    judge,
    rubric,
    rubric_hash,
    toUInt8(round(f * 4)) AS judge_grade,
    toUInt8(round(y * 4)) AS people_grade,
    f >= 0.5 AS judge_good,
    if(y = 0.5, NULL, y > 0.5) AS people_good,
    countIf(expired AND y != 0.5) AS expired_n,
    maxIf(labelled_at, NOT expired AND y != 0.5 AND nth = {min_labels:UInt32}) AS nth_at,
    countIf(NOT expired) AS n,
    sumIf(w, NOT expired) AS sum_w,
    sumIf(w * w, NOT expired) AS sum_ww,
    sumIf(w * y, NOT expired) AS sum_wy,
    sumIf(w * f, NOT expired) AS sum_wf,
    sumIf(w * w * y, NOT expired) AS sum_wwy,
    sumIf(w * w * f, NOT expired) AS sum_wwf,
    sumIf(w * w * y * y, NOT expired) AS sum_wwyy,
    sumIf(w * w * f * f, NOT expired) AS sum_wwff,
    sumIf(w * w * y * f, NOT expired) AS sum_wwyf
FROM both
GROUP BY judge, rubric, rubric_hash, judge_grade, people_grade, judge_good, people_good
ORDER BY judge, rubric, rubric_hash, judge_grade, people_grade, judge_good, people_good
