-- How many of the events {ids} of a task are stored, whatever was redelivered.
SELECT sum(n) AS n
FROM
(
    SELECT uniqExact(id) AS n
    FROM ratchet.inferences_log
    WHERE task = {task:String} AND at BETWEEN {first:DateTime64(6, 'UTC')} AND {last:DateTime64(6, 'UTC')}
      AND id IN {ids:Array(UUID)}
    UNION ALL
    SELECT uniqExact(id) AS n
    FROM ratchet.feedback_log
    WHERE task = {task:String} AND at BETWEEN {first:DateTime64(6, 'UTC')} AND {last:DateTime64(6, 'UTC')}
      AND id IN {ids:Array(UUID)}
)
