-- Which answers with a thumb down, of the share of them that is judged, have no word of this judge by this rubric yet
-- that was as likely? (The share is drawn as rules/sampling.py draws it.) Those from before the judge began are left
-- out unless their hour is judged: a mean of nothing but thumbs down would mean nothing.
WITH
    thumbs AS
    (
        SELECT DISTINCT about AS id
        FROM ratchet.thumbs_down
        WHERE task = {task:String} AND at >= {since:DateTime64(6, 'UTC')}
          AND reinterpretAsUInt64(reverse(substring(SHA256(concat('judge', char(31), toString(about))), 1, 8)))
              / 18446744073709551616. < {fraction:Float64}
    ),
    words AS
    (
        SELECT target_id, at, inclusion_probability
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'pointwise' AND target = 'inference'
          AND judge = {judge:String} AND rubric = {rubric:String} AND rubric_hash = {rubric_hash:String}
    )
SELECT id
FROM ratchet.inferences_log
WHERE task = {task:String} AND status = 'ok' AND response != '' AND id IN (SELECT id FROM thumbs)
  AND id NOT IN (SELECT target_id FROM words WHERE inclusion_probability >= {fraction:Float64})
  AND (at >= {started:DateTime64(6, 'UTC')} OR toStartOfHour(at) IN (SELECT toStartOfHour(at) FROM words))
GROUP BY id
ORDER BY id
LIMIT {most:UInt32}
