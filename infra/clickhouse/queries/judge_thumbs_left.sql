-- Which answers with a thumb down have no certain word of this judge by this rubric yet? Those from before the judge
-- began are left out unless their hour is judged: a mean of nothing but thumbs down would mean nothing.
WITH
    thumbs AS
    (
        SELECT DISTINCT inference_id AS id
        FROM ratchet.feedback
        WHERE task = {task:String} AND kind = 'thumb' AND number < 0.5 AND inference_id IS NOT NULL
          AND at >= {since:DateTime64(6, 'UTC')}
    ),
    words AS
    (
        SELECT target_id, at, inclusion_probability
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'pointwise' AND target = 'inference'
          AND judge = {judge:String} AND rubric = {rubric:String} AND rubric_hash = {rubric_hash:String}
    )
SELECT toString(id) AS id
FROM ratchet.inferences_log
WHERE task = {task:String} AND status = 'ok' AND response != '' AND id IN (SELECT id FROM thumbs)
  AND id NOT IN (SELECT target_id FROM words WHERE inclusion_probability = 1)
  AND (at >= {started:DateTime64(6, 'UTC')} OR toStartOfHour(at) IN (SELECT toStartOfHour(at) FROM words))
GROUP BY id
ORDER BY id
LIMIT {most:UInt32}
