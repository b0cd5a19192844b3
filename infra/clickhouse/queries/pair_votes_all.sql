-- What pair-making feedback does a task have?
SELECT
    id,
    toUnixTimestamp64Micro(at) AS at_us,
    kind,
    inference_id,
    compared_with,
    number,
    text,
    user,
    conversation_id
FROM ratchet.feedback
WHERE task = {task:String} AND kind IN ('correction', 'preference', 'thumb')
