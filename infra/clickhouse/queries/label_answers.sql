-- Which answers of a task does any thumb, rating or outcome name?
SELECT id, toUnixTimestamp64Micro(at) AS at_us, prompt_hash, conversation_id, adapter, status, content, request
FROM ratchet.inferences_log
WHERE task = {task:String}
  AND id IN
  (
      SELECT assumeNotNull(inference_id) FROM ratchet.feedback_log
      WHERE task = {task:String} AND kind IN ('thumb', 'rating', 'outcome') AND inference_id IS NOT NULL
  )
ORDER BY ingested_at DESC
LIMIT 1 BY id
