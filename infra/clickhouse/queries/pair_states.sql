-- How does every pair of a task stand, so that a sweep writes only what changed? ([] means every source.)
SELECT pair_id, status, reason, split, user, weight, confidence, votes, version
FROM ratchet.pairs
WHERE task = {task:String} AND (empty({sources:Array(String)}) OR source IN {sources:Array(String)})
