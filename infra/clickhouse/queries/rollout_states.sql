-- Each task's routing table in force.
SELECT task, argMax(state, version) AS state FROM ratchet.rollouts GROUP BY task ORDER BY task
