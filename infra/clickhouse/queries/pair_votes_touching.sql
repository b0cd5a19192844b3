-- What pair-making feedback is there on these answers, as either side of a comparison?
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
WHERE task = {task:String}
  AND kind IN ('correction', 'preference', 'thumb')
  AND (inference_id IN {ids:Array(UUID)} OR compared_with IN {ids:Array(UUID)})
