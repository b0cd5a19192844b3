-- What do pairs need of these shadow answers?
SELECT id, toUnixTimestamp64Micro(at) AS at_us, prompt_hash, conversation_id, adapter, status, content, request
FROM ratchet.shadows_log
WHERE task = {task:String} AND id IN {ids:Array(UUID)}
ORDER BY ingested_at DESC
LIMIT 1 BY id
