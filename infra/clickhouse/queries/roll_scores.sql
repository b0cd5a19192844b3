-- Write down what these hours of a task's scores come to.
INSERT INTO ratchet.hourly_scores_log
SELECT *, sum(n) OVER (PARTITION BY hour) AS hour_n, {upto:DateTime64(6, 'UTC')} AS upto
FROM ratchet.hourly_scores_now
WHERE task = {task:String} AND hour IN {hours:Array(DateTime('UTC'))}
