-- How does this alert stand?
SELECT toString(id) AS id, at, task, adapter, kind, key, severity, state, since, title, summary, action, runbook,
    false_alarms_per_year, evidence, source
FROM ratchet.alerts
WHERE alerts.id = {id:UUID}
