-- Which answers did a task's judges have no word on for a reason that goes by (a spent budget, an endpoint that is away),
-- a while ago, and none since?
WITH words AS
(
    SELECT target_id, score, rationale, judged_at, inclusion_probability
    FROM ratchet.scores
    WHERE task = {task:String} AND kind = 'pointwise' AND target IN ('inference', 'shadow')
      AND judge = {judge:String} AND rubric = {rubric:String} AND rubric_hash = {rubric_hash:String}
      AND at >= {oldest:DateTime64(6, 'UTC')}
)
SELECT target_id AS id, inclusion_probability AS probability
FROM words
WHERE score IS NULL AND startsWith(rationale, {passing:String}) AND judged_at < {again:DateTime64(6, 'UTC')}
ORDER BY judged_at, id
LIMIT {most:UInt32}
