-- Which answers of a task does any pair-making feedback name?
SELECT id, toUnixTimestamp64Micro(at) AS at_us, prompt_hash, conversation_id, adapter, status, content, request
FROM ratchet.inferences_log
WHERE task = {task:String}
  AND id IN
  (
      SELECT arrayJoin([inference_id, compared_with]) AS named FROM ratchet.feedback_log
      WHERE task = {task:String} AND kind IN ('correction', 'preference', 'thumb') AND named IS NOT NULL
  )
ORDER BY ingested_at DESC
LIMIT 1 BY id
