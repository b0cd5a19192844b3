-- How often does each judge say the same of an answer as people do?
-- People's word: mean of thumbs, outcomes, ratings and corrections (a correction says 0); 0.5 is no word.
WITH people AS
(
    SELECT
        inference_id AS target_id,
        avg(multiIf(kind = 'correction', 0., number)) AS label
    FROM ratchet.feedback
    WHERE task = {task:String} AND inference_id IS NOT NULL AND kind IN ('thumb', 'outcome', 'rating', 'correction')
    GROUP BY inference_id
    HAVING label != 0.5
)
SELECT
    judge,
    rubric,
    rubric_hash,
    countIf(score >= 0.5 AND label > 0.5) AS both_good,
    countIf(score >= 0.5 AND label < 0.5) AS judge_only_good,
    countIf(score < 0.5 AND label > 0.5) AS people_only_good,
    countIf(score < 0.5 AND label < 0.5) AS both_bad
FROM ratchet.scores AS scores
INNER JOIN people ON scores.target_id = people.target_id
WHERE task = {task:String} AND kind = 'pointwise' AND target = 'inference' AND score IS NOT NULL
GROUP BY judge, rubric, rubric_hash
ORDER BY judge, rubric, rubric_hash
