-- Which adapters each task ever served as its stable one, the latest first.
SELECT task, stable, max(version) AS last_version
FROM ratchet.rollouts
WHERE action IN ('promote', 'undo')
GROUP BY task, stable
ORDER BY task, last_version DESC
