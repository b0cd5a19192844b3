-- Which alerts say now that a judge of a task has drifted itself, and which judge?
SELECT title, JSONExtractString(evidence, 'judge') AS judge
FROM ratchet.alerts
WHERE task = {task:String} AND kind = 'judge_drift' AND state != 'resolved'
ORDER BY at
