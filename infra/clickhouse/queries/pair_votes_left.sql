-- Which pair-making feedback has no row yet, or one that misses an inference which is stored by now?
-- (What was stored just now is still on its usual way: by the server's clock, which wrote ingested_at. A row's version
-- counts its votes and the answers that were known; an answer that the row is about gives it its prompt_hash.)
WITH
    {since:DateTime64(6, 'UTC')} AS since,
    rows AS (SELECT event_ids, source, prompt_hash, version FROM ratchet.pairs WHERE task = {task:String} AND at >= since),
    waiting AS
    (
        SELECT arrayJoin(event_ids) FROM rows
        WHERE prompt_hash = '' OR (source = 'preference' AND version < length(event_ids) + 2)
    ),
    named AS
    (
        SELECT arrayJoin([inference_id, compared_with]) FROM ratchet.feedback_log
        WHERE task = {task:String} AND at >= since AND id IN (waiting)
    ),
    known AS (SELECT id FROM ratchet.inferences_log WHERE task = {task:String} AND id IN (named))
SELECT * EXCEPT (task, at, ingested_at)
FROM ratchet.votes
WHERE task = {task:String}
  AND at >= since
  AND ingested_at <= now64(3) - toIntervalMillisecond({settled_ms:UInt32})
  AND
  (
      id NOT IN (SELECT arrayJoin(event_ids) FROM rows)
      OR (id IN (waiting) AND inference_id IN (known) AND (compared_with IS NULL OR compared_with IN (known)))
  )
LIMIT {most:UInt32}
