-- How many candidates of a task became no pair, by reason.
SELECT reason, count() AS n
FROM ratchet.pairs
WHERE task = {task:String} AND status = 'dropped'
GROUP BY reason
ORDER BY reason
