-- The next answers of a task in a window, oldest first, with what decides whether they are judged: the beginning of
-- the text, whether a thumb is down on them, and the probability of the word that they have (0: none).
WITH
    said AS
    (
        SELECT target_id, any(inclusion_probability) AS probability
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'pointwise' AND score IS NOT NULL
          AND judge = {judge:String} AND rubric = {rubric:String} AND rubric_hash = {rubric_hash:String}
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        GROUP BY target_id
    ),
    down AS
    (
        SELECT DISTINCT about AS id FROM ratchet.thumbs_down WHERE task = {task:String}
    ),
    stored AS
    (
        SELECT id, id AS drawn_by, at, substringUTF8(content, 1, 1200) AS head, id IN (SELECT id FROM down) AS thumb_down
        FROM ratchet.inferences
        WHERE task = {task:String} AND status = 'ok' AND response != ''
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        UNION ALL
        SELECT id, inference_id AS drawn_by, at, substringUTF8(content, 1, 1200) AS head, false AS thumb_down
        FROM ratchet.shadows
        WHERE task = {task:String} AND status = 'ok' AND response != ''
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    )
SELECT id, drawn_by, at, head, thumb_down, probability
FROM stored LEFT JOIN said ON stored.id = said.target_id
WHERE (at, id) > ({after_at:DateTime64(6, 'UTC')}, {after_id:UUID})
ORDER BY at, id
LIMIT {most:UInt32}
