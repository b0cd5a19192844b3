-- What pair-making feedback is there on these answers, as either side of a comparison?
SELECT * EXCEPT (task, at, ingested_at)
FROM ratchet.votes
WHERE task = {task:String}
  AND (inference_id IN {ids:Array(UUID)} OR compared_with IN {ids:Array(UUID)})
