-- Which adapters served a task's users as its stable one lately, when did their traffic begin, and since when is each promoted?
SELECT
    traffic.adapter AS adapter,
    traffic.began AS began,
    promotions.promoted_at AS promoted_at
FROM
(
    SELECT adapter, min(hour) AS began, max(hour) AS latest
    FROM ratchet.hourly
    WHERE task = {task:String} AND stage = 'stable'
    GROUP BY adapter
) AS traffic
LEFT JOIN
(
    SELECT stable, toNullable(min(at)) AS promoted_at
    FROM ratchet.rollouts
    WHERE task = {task:String} AND status = 'promoted'
    GROUP BY stable
) AS promotions ON traffic.adapter = promotions.stable
WHERE traffic.latest >= {since:DateTime64(6, 'UTC')}
ORDER BY adapter
