-- Write down the commonest terms of these hours of a task's prompts and answers.
INSERT INTO ratchet.hourly_terms_log
SELECT *, sum(texts) OVER (PARTITION BY hour) AS hour_n, {upto:DateTime64(6, 'UTC')} AS upto
FROM ratchet.hourly_terms_now
WHERE task = {task:String} AND hour IN {hours:Array(DateTime('UTC'))}
