-- Until when did the rules speak of a task's adapter, and what runs did its shifts have then?
SELECT at, metric, streak, calm
FROM ratchet.drift
WHERE task = {task:String} AND adapter = {adapter:String} AND rule = 'shift'
  AND at = (SELECT max(at) FROM ratchet.drift WHERE task = {task:String} AND adapter = {adapter:String} AND at <= {upto:DateTime64(6, 'UTC')})
ORDER BY metric
