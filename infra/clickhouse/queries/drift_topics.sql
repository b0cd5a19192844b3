-- Which topics were kept of a pinned baseline, by any embedding model?
SELECT metric, model, version, centroids, labels, counts
FROM ratchet.topics
WHERE task = {task:String} AND adapter = {adapter:String}
  AND baseline_since = {since:DateTime64(6, 'UTC')} AND baseline_until = {until:DateTime64(6, 'UTC')}
ORDER BY metric, model
