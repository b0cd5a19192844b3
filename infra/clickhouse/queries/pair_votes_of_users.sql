-- What did these users vote on, for their cap? (The text of corrections is left out: the cap needs none.)
SELECT
    id,
    toUnixTimestamp64Micro(at) AS at_us,
    kind,
    inference_id,
    compared_with,
    number,
    '' AS text,
    user,
    conversation_id
FROM ratchet.feedback
WHERE task = {task:String}
  AND kind IN ('correction', 'preference', 'thumb')
  AND user IN {users:Array(String)}
