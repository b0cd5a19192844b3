-- Which open alerts of a task may ask for training, the gravest first? Those about the adapter that it serves now (any,
-- where nothing was ever rolled out): a training mends no adapter that is gone. An acknowledged alert is in a person's hands.
WITH
    (SELECT argMax(stable, (version, at)) FROM ratchet.rollouts WHERE task = {task:String}) AS serves
SELECT
    toString(id) AS id,
    title,
    JSONExtractString(evidence, 'metric') AS metric
FROM ratchet.alerts
WHERE task = {task:String} AND state = 'open' AND kind IN {kinds:Array(String)}
  AND (adapter = '' OR serves = '' OR adapter = serves)
ORDER BY severity != 'critical', since, id
