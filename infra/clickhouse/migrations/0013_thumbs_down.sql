-- Which answer is each thumb down about? The one that it names; of a whole conversation the last one before the thumb,
-- which is what its user had seen when it was given.
CREATE VIEW IF NOT EXISTS ratchet.thumbs_down AS
SELECT task, at, id, assumeNotNull(inference_id) AS about
FROM ratchet.feedback_log FINAL
WHERE kind = 'thumb' AND number < 0.5 AND inference_id IS NOT NULL
UNION ALL
SELECT given.task AS task, any(given.at) AS at, given.id AS id, argMax(answers.id, (answers.at, answers.id)) AS about
FROM
(
    SELECT task, at, id, conversation_id
    FROM ratchet.feedback_log FINAL
    WHERE kind = 'thumb' AND number < 0.5 AND inference_id IS NULL AND conversation_id != ''
) AS given
GLOBAL INNER JOIN
(
    SELECT task, at, id, conversation_id
    FROM ratchet.inferences_log
    WHERE status = 'ok' AND (task, conversation_id) GLOBAL IN
    (
        SELECT task, conversation_id FROM ratchet.feedback_log
        WHERE kind = 'thumb' AND number < 0.5 AND inference_id IS NULL AND conversation_id != ''
    )
) AS answers ON given.task = answers.task AND given.conversation_id = answers.conversation_id
WHERE answers.at <= given.at
GROUP BY given.task, given.id;
