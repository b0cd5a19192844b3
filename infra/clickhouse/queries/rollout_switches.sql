-- How fast did each flip away from an adapter go: from the decision to the last request that was routed to it, and until
-- the last gateway that spoke then had the table in force? The newest first. last_request: none within a day before the
-- decision and an hour after it is NULL, and the switch took 0 s. acknowledged_at is NULL while one that spoke in the
-- minute before the decision has not said so, and where none spoke.
WITH
    flips AS
    (
        SELECT
            at, version, action, actor, rollout_id,
            if(action = 'abort', candidate, JSONExtractString(state, 'previous')) AS bad
        FROM ratchet.rollouts
        WHERE task = {task:String} AND action IN ('abort', 'undo', 'promote')
        ORDER BY version DESC
        LIMIT {most:UInt32}
    ),
    asked AS
    (
        SELECT flips.version AS version, max(calls.at) AS last_request
        FROM
        (
            SELECT at, adapter FROM ratchet.inferences_log FINAL
            WHERE task = {task:String} AND stage IN ('stable', 'canary') AND at >= (SELECT min(at) FROM flips) - toIntervalDay(1)
        ) AS calls
        INNER JOIN flips ON calls.adapter = flips.bad
        WHERE calls.at >= flips.at - toIntervalDay(1) AND calls.at < flips.at + toIntervalHour(1)
        GROUP BY flips.version
    ),
    by_gateway AS
    (
        SELECT
            flips.version AS version,
            words.gateway AS gateway,
            minIf(words.since[{task:String}], words.tables[{task:String}] >= flips.version) AS taken,
            countIf(words.tables[{task:String}] >= flips.version) > 0 AS has
        FROM ratchet.gateways AS words
        CROSS JOIN flips
        WHERE words.at >= flips.at - toIntervalMinute(1) AND words.at < flips.at + toIntervalHour(1) AND words.state = 'up'
            AND (words.gateway NOT LIKE 'edge:%:%:%' OR startsWith(words.gateway, concat('edge:', {task:String}, ':')))
        GROUP BY flips.version, words.gateway
    ),
    acknowledged AS
    (
        SELECT version, count() AS gateways, countIf(has) AS followed, max(taken) AS last_taken
        FROM by_gateway
        GROUP BY version
    )
SELECT
    flips.at AS decided_at,
    flips.version AS version,
    flips.action AS action,
    flips.actor AS actor,
    flips.bad AS adapter,
    nullIf(asked.last_request, toDateTime64(0, 6, 'UTC')) AS last_request,
    greatest(0, if(asked.version = 0, 0, dateDiff('microsecond', flips.at, asked.last_request)) / 1e6) AS switch_seconds,
    acknowledged.gateways AS gateways,
    acknowledged.followed AS followed,
    if(gateways > 0 AND gateways = followed, last_taken, NULL) AS acknowledged_at
FROM flips
LEFT JOIN asked ON flips.version = asked.version
LEFT JOIN acknowledged ON flips.version = acknowledged.version
ORDER BY version DESC
