-- The pairs that an event had a part in, or the pair of this id, built or dropped.
SELECT pair_id, task, at, source, status, reason, split, arrayMap(one -> toString(one), event_ids) AS events
FROM ratchet.pairs
WHERE pair_id = {id:String}
   OR has(events, {id:String})
   OR has(splitByChar(':', pair_id), {id:String})
ORDER BY task, pair_id
