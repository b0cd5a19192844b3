-- What pair-making feedback does a task have?
SELECT * EXCEPT (task, at, ingested_at)
FROM ratchet.votes
WHERE task = {task:String}
