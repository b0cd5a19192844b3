-- Note the hours of feedback that was stored before the answer which it is about, for answers stored since: rolled up
-- without it, they count for no adapter. Feedback of the last day; what is later than that stays with its task alone.
INSERT INTO ratchet.hours_log (source, task, hour, noted_at)
WITH arrived AS
(
    SELECT id, min(ingested_at) AS stored_at
    FROM ratchet.inferences_log
    WHERE ingested_at >= fromUnixTimestamp64Milli({since_ms:Int64}) AND at >= now64(6) - INTERVAL 2 DAY
    GROUP BY id
)
SELECT DISTINCT 'feedback', task, toStartOfHour(at), now64(6)
FROM ratchet.feedback_log
INNER JOIN arrived ON assumeNotNull(inference_id) = arrived.id
WHERE at >= now64(6) - INTERVAL 1 DAY
  AND inference_id IN (SELECT id FROM arrived)
  AND ingested_at < stored_at
