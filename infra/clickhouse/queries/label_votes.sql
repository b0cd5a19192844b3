-- What does feedback with a number (thumbs, ratings, outcomes) say of which answer of a task, and is a pair made of it?
SELECT
    id,
    toUnixTimestamp64Micro(at) AS at_us,
    kind,
    assumeNotNull(number) AS number,
    user,
    assumeNotNull(inference_id) AS inference_id,
    id IN (SELECT arrayJoin(event_ids) FROM ratchet.pairs WHERE task = {task:String} AND status = 'built') AS paired
FROM ratchet.feedback
WHERE task = {task:String}
  AND kind IN ('thumb', 'rating', 'outcome')
  AND inference_id IS NOT NULL
  AND number IS NOT NULL
