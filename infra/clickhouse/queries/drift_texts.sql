-- The first answers and prompts of a stretch of time: a slice of a sample, cheap by the table's order.
SELECT if(status = 'ok', substringUTF8(content, 1, 2000), '') AS answer, substringUTF8(prompt, 1, 2000) AS prompt
FROM ratchet.inferences_log
WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
  AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
ORDER BY task, at, id
LIMIT 1 BY id
LIMIT {most:UInt32}
