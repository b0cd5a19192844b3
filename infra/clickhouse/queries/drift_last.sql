-- Until when did the rules speak of a task's adapter, and what runs did its shifts have when they last spoke?
WITH
    spoken AS
    (
        SELECT at, metric, rule, streak, calm
        FROM ratchet.drift
        WHERE task = {task:String} AND adapter = {adapter:String} AND at <= {upto:DateTime64(6, 'UTC')}
    )
SELECT (SELECT max(at) FROM spoken) AS upto, at, metric, rule, streak, calm
FROM spoken
WHERE at = (SELECT max(at) FROM spoken WHERE rule = 'shift') OR at = (SELECT max(at) FROM spoken)
ORDER BY metric, rule
