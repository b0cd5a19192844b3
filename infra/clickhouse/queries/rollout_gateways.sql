-- What did each gateway say last of a task's routing table, up to an instant? One that left, or that has been silent
-- for longer than an hour by then, is gone.
-- Another task's own edge (edge:<task>:<host>:<name>) has nothing to say of this one.
SELECT gateway, max(at) AS seen_at, argMax(tables[{task:String}], at) AS version, argMax(since[{task:String}], at) AS since
FROM ratchet.gateways
WHERE at <= {until:DateTime64(6, 'UTC')} AND at > {until:DateTime64(6, 'UTC')} - toIntervalHour(1)
    AND (gateway NOT LIKE 'edge:%:%:%' OR startsWith(gateway, concat('edge:', {task:String}, ':')))
GROUP BY gateway
HAVING argMax(state, at) = 'up'
ORDER BY gateway
