-- How many calls did an adapter get in a rollout (production and shadow), and when was the last one routed?
SELECT count() AS n, max(at) AS last_at
FROM
(
    SELECT at FROM ratchet.inferences WHERE adapter = {adapter:String} AND rollout_id = {rollout_id:UUID}
    UNION ALL
    SELECT at FROM ratchet.shadows WHERE adapter = {adapter:String} AND rollout_id = {rollout_id:UUID}
)
