-- What did these users vote on, for their cap? (The text of corrections is left out: the cap needs none.)
SELECT * EXCEPT (task, at, ingested_at) REPLACE ('' AS text)
FROM ratchet.votes
WHERE task = {task:String}
  AND user IN {users:Array(String)}
