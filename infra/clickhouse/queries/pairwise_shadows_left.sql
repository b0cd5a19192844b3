-- The next mirrored requests of a task whose two answers are to be compared, oldest first: drawn by the production
-- request's id (rules.sampling.position), answered by both adapters, without a word of this judge and rubric.
WITH
    drawn AS
    (
        SELECT id, inference_id, at, adapter
        FROM ratchet.shadows_log
        WHERE task = {task:String} AND at >= {since:DateTime64(6, 'UTC')} AND status = 'ok' AND response != ''
          AND reinterpretAsUInt64(reverse(substring(SHA256(concat('judge', char(31), toString(inference_id))), 1, 8)))
              / 18446744073709551616. < {fraction:Float64}
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    ),
    judged AS
    (
        SELECT target_id
        FROM ratchet.scores_log
        WHERE task = {task:String} AND kind = 'pairwise' AND rubric = {rubric:String} AND at >= {since:DateTime64(6, 'UTC')}
          AND target = 'shadow' AND judge = {judge:String} AND rubric_hash = {rubric_hash:String}
          -- what a judge could not say for a reason that goes by is asked again after a while
          AND NOT (score IS NULL AND startsWith(rationale, {passing:String}) AND ifNull(judged_at < {again:DateTime64(6, 'UTC')}, false)
               AND at >= {oldest:DateTime64(6, 'UTC')})
    ),
    served AS
    (
        SELECT id, adapter
        FROM ratchet.inferences_log
        WHERE task = {task:String} AND id IN (SELECT inference_id FROM drawn) AND status = 'ok' AND response != ''
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    )
SELECT drawn.id AS id, drawn.inference_id AS inference_id
FROM drawn INNER JOIN served ON drawn.inference_id = served.id
WHERE drawn.adapter != served.adapter AND drawn.id NOT IN (SELECT target_id FROM judged)
ORDER BY drawn.at, drawn.id
LIMIT {most:UInt32}
