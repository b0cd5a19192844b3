-- How many words of judges, checks and people are there on these texts?
SELECT count() AS n FROM ratchet.scores_log FINAL WHERE target_id IN {ids:Array(UUID)}
