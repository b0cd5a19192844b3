-- How much is known of each hour of a task by now? A late event changes its hour's figure.
SELECT hour, sum(n) AS known
FROM
(
    SELECT hour, n FROM ratchet.hourly WHERE task = {task:String}
    UNION ALL
    SELECT hour, n FROM ratchet.hourly_scores WHERE task = {task:String}
    UNION ALL
    -- an answer that comes after its feedback gives that an adapter
    SELECT hour, n + arraySum(mapValues(mapFilter((by, _) -> by != '', adapter_numbers))) AS n
    FROM ratchet.hourly_feedback
    WHERE task = {task:String}
)
WHERE hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
GROUP BY hour
ORDER BY hour
