-- How many candidates for pairs were built or dropped, by source, split and reason? ('' means every task.)
-- Upvoted answers that another row uses as its chosen side ('merged') are no candidates of their own.
SELECT task, source, status, reason, split, count() AS n
FROM ratchet.pairs
WHERE ({task:String} = '' OR task = {task:String}) AND status IN ('built', 'dropped')
GROUP BY task, source, status, reason, split
ORDER BY task, source, status, reason, split
