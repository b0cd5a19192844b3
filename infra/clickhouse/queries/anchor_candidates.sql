-- The answers of a task that people labelled, in an order that only their ids decide, half good and half bad.
WITH
    people AS
    (
        SELECT assumeNotNull(inference_id) AS target_id, avg(multiIf(kind = 'correction', 0., number)) AS label, 0 AS rank
        FROM ratchet.feedback
        WHERE task = {task:String} AND inference_id IS NOT NULL AND kind IN ('thumb', 'outcome', 'rating', 'correction')
        GROUP BY target_id
        UNION ALL
        SELECT target_id, argMax(assumeNotNull(score), at) AS label, 1 AS rank
        FROM ratchet.labels
        WHERE task = {task:String} AND score IS NOT NULL
        GROUP BY target_id
    ),
    labels AS (SELECT target_id, argMax(label, rank) AS y FROM people GROUP BY target_id HAVING y != 0.5)
SELECT toString(id) AS id, adapter, request, response, y AS label
FROM ratchet.inferences
INNER JOIN labels ON inferences.id = labels.target_id
WHERE task = {task:String} AND status = 'ok' AND response != ''
ORDER BY cityHash64(toString(id))
LIMIT {half:UInt32} BY y > 0.5
