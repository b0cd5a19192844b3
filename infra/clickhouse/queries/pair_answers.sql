-- What do pairs need of these inferences? (LIMIT 1 BY instead of FINAL: the bloom filter on id then prunes.)
SELECT id, toUnixTimestamp64Micro(at) AS at_us, prompt_hash, conversation_id, adapter, status, content, request
FROM ratchet.inferences_log
WHERE task = {task:String} AND id IN {ids:Array(UUID)}
ORDER BY ingested_at DESC
LIMIT 1 BY id
