-- What does feedback with a number (thumbs, ratings, outcomes) say of which answer of a task?
SELECT id, toUnixTimestamp64Micro(at) AS at_us, kind, assumeNotNull(number) AS number, user, inference_id
FROM ratchet.feedback
WHERE task = {task:String}
  AND kind IN ('thumb', 'rating', 'outcome')
  AND inference_id IS NOT NULL
  AND number IS NOT NULL
