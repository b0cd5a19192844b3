-- These answers of a task, with what was asked. (LIMIT 1 BY instead of FINAL: the bloom filter on id then prunes.)
SELECT 'inference' AS target, id, id AS drawn_by, at, adapter, rollout_id, request, response
FROM ratchet.inferences_log
WHERE task = {task:String} AND id IN {ids:Array(UUID)}
ORDER BY ingested_at DESC
LIMIT 1 BY id
UNION ALL
SELECT 'shadow' AS target, id, inference_id AS drawn_by, at, adapter, rollout_id, request, response
FROM ratchet.shadows_log
WHERE task = {task:String} AND id IN {ids:Array(UUID)}
ORDER BY ingested_at DESC
LIMIT 1 BY id
