-- Of these event ids, how many does the view give, and how many different ones?
SELECT count() AS n_rows, uniqExact(id) AS n_ids
FROM
(
    SELECT id FROM ratchet.inferences WHERE id IN {ids:Array(UUID)}
    UNION ALL
    SELECT id FROM ratchet.feedback WHERE id IN {ids:Array(UUID)}
)
