-- Which alerts say now that a task's judge itself has drifted?
SELECT toString(id) AS id, title
FROM ratchet.alerts
WHERE task = {task:String} AND kind = 'judge_drift' AND state != 'resolved'
ORDER BY at
