-- Which alerts say that ingest stands before a flood? Where it stands is in their evidence.
SELECT toString(id) AS id, kind, key, severity, since, title, summary, action, runbook, evidence, source
FROM ratchet.alerts
WHERE kind = 'flood' AND state != 'resolved'
