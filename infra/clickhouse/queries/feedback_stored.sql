-- Which of these feedback events are stored yet? (Their times find them by the sorting key.)
SELECT DISTINCT id
FROM ratchet.feedback_log
WHERE task = {task:String}
  AND at BETWEEN {first:DateTime64(6, 'UTC')} AND {last:DateTime64(6, 'UTC')}
  AND id IN {ids:Array(UUID)}
