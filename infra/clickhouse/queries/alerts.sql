-- What should a person look at, the newest first? ('' means every task, every state.)
SELECT
    toString(id) AS id, at, task, adapter, kind, key, severity, state, since, title, summary, action, runbook,
    false_alarms_per_year, evidence, source
FROM ratchet.alerts
WHERE ({task:String} = '' OR task = {task:String}) AND ({state:String} = '' OR state = {state:String})
ORDER BY at DESC, id
LIMIT {most:UInt32}
