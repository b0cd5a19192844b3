-- Every pair of a task that was built, as a dataset takes it.
SELECT
    pair_id,
    source,
    split,
    conversation_id,
    user,
    prompt_hash,
    prompt,
    chosen,
    rejected,
    weight,
    confidence,
    event_ids
FROM ratchet.pairs
WHERE task = {task:String} AND status = 'built'
ORDER BY pair_id
