-- Which pairs, built or not, did these events (feedback, or the answers themselves) have a part in?
SELECT task, pair_id, chosen, rejected
FROM ratchet.pairs
WHERE hasAny(event_ids, {ids:Array(UUID)})
