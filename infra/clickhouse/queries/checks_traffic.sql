-- What did a task's models answer, the newest first? (For a trial of checks: nothing is stored.)
SELECT
    toString(id) AS id, adapter, request, response, latency_ms, ttft_ms, completion_tokens, tags
FROM ratchet.inferences
WHERE task = {task:String} AND status = 'ok' AND response != '' AND at >= {since:DateTime64(6, 'UTC')}
ORDER BY at DESC
LIMIT {most:UInt32}
