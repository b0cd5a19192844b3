-- How does every pair of a task stand, so that a sweep writes only what changed?
SELECT pair_id, status, reason, split, user, confidence, votes, version FROM ratchet.pairs WHERE task = {task:String}
