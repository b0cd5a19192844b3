-- What should a person look at, the newest first? ('' means every task, every state.)
SELECT toString(id) AS id, at, task, kind, severity, state, title, summary, action, false_alarm_rate, evidence, source
FROM ratchet.alerts
WHERE ({task:String} = '' OR task = {task:String}) AND ({state:String} = '' OR state = {state:String})
ORDER BY at DESC, id
LIMIT {most:UInt32}
