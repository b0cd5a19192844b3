-- Which hours were touched since they were rolled up, and are quiet by now? As of which moment is a second column,
-- by the server's clock, which wrote the notes too.
SELECT source, task, groupArray(toUnixTimestamp(hour)) AS hours, quiet AS upto
FROM
(
    SELECT source, task, hour, now64(6) - toIntervalMillisecond({settled_ms:UInt32}) AS quiet
    FROM ratchet.hours_log
    GROUP BY source, task, hour
    HAVING max(noted_at) > max(rolled_upto) AND max(noted_at) <= quiet
    ORDER BY source, task, hour
    LIMIT {most:UInt32}
)
GROUP BY source, task, quiet
ORDER BY source, task
