-- Which answers did users ask for again, and with which one did the conversation go on? A later request of it holds the
-- answer that was kept, word for word, and none of those that it replaced.
WITH
    {since:DateTime64(3, 'UTC')} - INTERVAL 1 DAY AS since_a_day,
    again AS
    (
        SELECT conversation_id, prompt_hash
        FROM ratchet.inferences_log
        WHERE task = {task:String} AND status = 'ok' AND content != '' AND conversation_id != '' AND at >= since_a_day
          AND conversation_id IN
          (
              SELECT conversation_id FROM ratchet.inferences_log
              WHERE task = {task:String} AND conversation_id != '' AND at >= since_a_day
                AND ingested_at >= {since:DateTime64(3, 'UTC')}
          )
        GROUP BY conversation_id, prompt_hash
        HAVING uniqExact(content) > 1
    ),
    turns AS
    (
        SELECT id, at, conversation_id, prompt_hash, content, user, status, request
        FROM ratchet.inferences_log
        WHERE task = {task:String} AND conversation_id IN (SELECT conversation_id FROM again) AND at >= since_a_day
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    ),
    -- what each conversation's requests quote of the assistant
    quoted AS
    (
        SELECT conversation_id, JSONExtractString(message, 'content') AS content, max(at) AS last
        FROM turns ARRAY JOIN JSONExtractArrayRaw(request, 'messages') AS message
        WHERE JSONExtractString(message, 'role') = 'assistant'
        GROUP BY conversation_id, content
    ),
    candidates AS
    (
        SELECT
            id, at, conversation_id, prompt_hash, turns.content AS content, user,
            (conversation_id, turns.content) IN (SELECT conversation_id, content FROM quoted) AS went_on
        FROM turns
        WHERE status = 'ok' AND content != '' AND (conversation_id, prompt_hash) IN (SELECT conversation_id, prompt_hash FROM again)
    )
SELECT
    kept.id AS chosen,
    lost.id AS rejected,
    toUnixTimestamp64Micro(kept.at) AS at_us,
    lost.user AS user
FROM candidates AS lost
INNER JOIN candidates AS kept ON lost.conversation_id = kept.conversation_id AND lost.prompt_hash = kept.prompt_hash
WHERE kept.went_on AND NOT lost.went_on AND lost.at < kept.at AND lost.content != kept.content
  AND kept.at <= lost.at + toIntervalSecond({window_s:Float64})
ORDER BY rejected, at_us, chosen
LIMIT 1 BY rejected
