-- Which critical alert about a rollout's candidate, raised or said again since the rollout began, is open? (The first.)
SELECT toString(id) AS alert, title
FROM ratchet.alerts
WHERE task = {task:String} AND adapter = {candidate:String} AND severity = 'critical' AND state = 'open'
  AND at >= {began:DateTime64(6, 'UTC')}
ORDER BY at, id
LIMIT 1
