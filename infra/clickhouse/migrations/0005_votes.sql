-- The feedback that can make a pair, as pairing takes it.
CREATE VIEW IF NOT EXISTS ratchet.votes AS
SELECT
    task,
    at,
    ingested_at,
    id,
    toUnixTimestamp64Micro(at) AS at_us,
    kind,
    inference_id,
    compared_with,
    number,
    text,
    user,
    conversation_id
FROM ratchet.feedback_log FINAL
WHERE kind IN ('correction', 'preference', 'thumb');
