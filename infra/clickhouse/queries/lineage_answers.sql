-- How many requests each adapter answered in each stage, and the first and last of them; shadow copies too.
SELECT adapter, stage, count() AS n, min(at) AS first_at, max(at) AS last_at
FROM
(
    SELECT adapter, stage, at FROM ratchet.inferences WHERE adapter IN {names:Array(String)}
    UNION ALL
    SELECT adapter, stage, at FROM ratchet.shadows WHERE adapter IN {names:Array(String)}
)
GROUP BY adapter, stage
ORDER BY adapter, min(at)
