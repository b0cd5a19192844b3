-- Which answers to the same prompt does feedback of a kind call good, and which bad, for the prompts that got a word
-- since? Only prompts with both; the latest word on an answer counts. (By id and prompt, whose bloom filters prune; what
-- is stored more than a day late is found when everything is derived again.)
WITH
    graded AS
    (
        SELECT assumeNotNull(inference_id) FROM ratchet.feedback_log
        WHERE task = {task:String} AND kind = {kind:String} AND inference_id IS NOT NULL
          AND ingested_at >= {since:DateTime64(3, 'UTC')} AND at >= {since:DateTime64(3, 'UTC')} - INTERVAL 1 DAY
    ),
    touched AS (SELECT DISTINCT prompt_hash FROM ratchet.inferences_log WHERE task = {task:String} AND id IN (graded)),
    answers AS
    (
        SELECT id, prompt_hash FROM ratchet.inferences_log
        WHERE task = {task:String} AND prompt_hash IN (touched)
        LIMIT 1 BY id
    ),
    words AS
    (
        SELECT
            assumeNotNull(inference_id) AS answer,
            argMax(tuple(assumeNotNull(number), id, user, toUnixTimestamp64Micro(at)), (at, id)) AS last
        FROM ratchet.feedback_log
        WHERE task = {task:String} AND kind = {kind:String} AND number IS NOT NULL
          AND inference_id IN (SELECT id FROM answers)
        GROUP BY answer
    ),
    decided AS
    (
        SELECT prompt_hash, answer, last.1 >= {good:Float64} AS good, last.2 AS event_id, last.3 AS user, last.4 AS at_us
        FROM answers INNER JOIN words ON answers.id = words.answer
        WHERE last.1 >= {good:Float64} OR last.1 <= {bad:Float64}
    )
SELECT prompt_hash, answer AS id, good, event_id, user, at_us
FROM decided
WHERE prompt_hash IN (SELECT prompt_hash FROM decided GROUP BY prompt_hash HAVING uniqExact(good) = 2)
ORDER BY prompt_hash, at_us, id
