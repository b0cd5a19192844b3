-- The next preference pairs of a task for a second opinion, oldest first: drawn by the pair's id, without a word of
-- this judge and rubric on these texts. target_id is schemas.ids.derived_id(0, 'pair', pair_id, chosen, rejected).
WITH
    char(31) AS us,
    drawn AS
    (
        SELECT
            lower(hex(SHA256(concat('pair', us, pair_id, us, chosen, us, rejected)))) AS h,
            toUUID(concat('00000000-0000-7', substring(h, 2, 3), '-',
                substring('89ab', bitAnd(position('0123456789abcdef', substring(h, 5, 1)) - 1, 3) + 1, 1), substring(h, 6, 3),
                '-', substring(h, 9, 12))) AS target_id,
            pair_id, at, prompt, chosen, rejected, rejected_adapter AS adapter
        FROM ratchet.pairs
        WHERE task = {task:String} AND at >= {since:DateTime64(6, 'UTC')} AND status = 'built'
          AND reinterpretAsUInt64(reverse(substring(SHA256(concat('pair', us, pair_id)), 1, 8)))
              / 18446744073709551616. < {fraction:Float64}
    )
SELECT target_id AS id, at, prompt, chosen, rejected, adapter
FROM drawn
WHERE target_id NOT IN
(
    SELECT target_id
    FROM ratchet.scores_log
    WHERE task = {task:String} AND kind = 'pairwise' AND rubric = {rubric:String} AND target = 'pair'
      AND judge = {judge:String} AND rubric_hash = {rubric_hash:String}
      -- what a judge could not say for a reason that goes by is asked again after a while
      AND NOT (score IS NULL AND startsWith(rationale, {passing:String}) AND ifNull(judged_at < {again:DateTime64(6, 'UTC')}, false)
           AND at >= {oldest:DateTime64(6, 'UTC')})
      AND target_id IN (SELECT target_id FROM drawn)
)
ORDER BY at, id
LIMIT {most:UInt32}
