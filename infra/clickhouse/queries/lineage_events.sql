-- What kind of event each of these ids is; ids that are stored no more are not in the answer.
SELECT DISTINCT 'inference' AS kind, toString(id) AS event_id FROM ratchet.inferences_log WHERE id IN {ids:Array(UUID)}
UNION ALL
SELECT DISTINCT 'shadow' AS kind, toString(id) AS event_id FROM ratchet.shadows_log WHERE id IN {ids:Array(UUID)}
UNION ALL
SELECT DISTINCT 'feedback' AS kind, toString(id) AS event_id FROM ratchet.feedback_log WHERE id IN {ids:Array(UUID)}
UNION ALL
SELECT DISTINCT 'score' AS kind, toString(id) AS event_id FROM ratchet.scores_log WHERE id IN {ids:Array(UUID)}
