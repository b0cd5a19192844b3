-- How does the newest alert of each thing that drift's rules speak of stand, for a task?
SELECT toString(id) AS id, at, task, adapter, kind, key, severity, state, since, title, summary, action, runbook, false_alarms_per_year, evidence, source
FROM ratchet.alerts
WHERE task = {task:String} AND source = 'drift'
ORDER BY at DESC
LIMIT 1 BY key
