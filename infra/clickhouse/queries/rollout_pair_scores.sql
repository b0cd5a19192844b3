-- Mirrored requests as both adapters answered them: what did a check or a judge say of each, and what is the difference,
-- candidate less stable, request by request? Clustered by user (as rollout_calls.sql). judge and rubric_hash '' mean any
-- (of a check, which has no judge). passing: as in rollout_checks.sql, 1 or 0; of a judge 1. Pairs count where both have
-- a score, or (failures_count) a call without an answer, which then counts as 0; where a fallback answered the user,
-- stable failed. Both answers are in the judge's sample or neither is, so a pair has the smaller inclusion probability.
-- A check's abstentions are counted; a judge abstains for reasons that are not the answer's.
WITH
    copies AS
    (
        SELECT id, inference_id, status
        FROM ratchet.shadows_log FINAL
        WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND adapter = {candidate:String}
          AND status != 'cancelled'
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    ),
    served AS
    (
        SELECT id, sticky, stage = 'fallback' OR status != 'ok' AS failed
        FROM ratchet.inferences_log FINAL
        WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND status != 'cancelled'
          AND stage IN ('stable', 'fallback')
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
          AND id IN (SELECT inference_id FROM copies)
    ),
    said AS
    (
        SELECT
            target_id,
            target,
            1 AS asked,
            countIf(score IS NOT NULL) > 0 AS scored,
            argMaxIf(
                multiIf(kind = 'check' AND verdict = 'pass', 1., kind = 'check' AND verdict = 'fail', 0., score),
                toUnixTimestamp64Milli(ifNull(judged_at, ingested_at)),
                score IS NOT NULL
            ) AS passed,
            if({passing:Bool}, ifNull(passed, 0), 1 - ifNull(passed, 0)) AS x,
            argMaxIf(
                1 / inclusion_probability,
                toUnixTimestamp64Milli(ifNull(judged_at, ingested_at)),
                score IS NOT NULL
            ) AS w
        FROM ratchet.scores_log
        WHERE task = {task:String} AND kind = {kind:String} AND rubric = {rubric:String}
          AND {judge:String} IN ('', judge) AND {rubric_hash:String} IN ('', rubric_hash)
          AND at >= {since:DateTime64(6, 'UTC')}
          AND (target = 'shadow' OR target = 'inference' AND target_id IN (SELECT inference_id FROM copies))
        GROUP BY target_id, target
    ),
    pairs AS
    (
        SELECT
            sticky,
            greatest(if(of_old.scored, of_old.w, 1), if(of_new.scored, of_new.w, 1)) AS w,
            failed AND {failures_count:Bool} AS no_old,
            status != 'ok' AND {failures_count:Bool} AS no_new,
            (no_old OR (of_old.scored AND NOT failed)) AND (no_new OR (of_new.scored AND status = 'ok')) AS counts,
            if(no_old, 0, of_old.x) AS old,
            if(no_new, 0, of_new.x) AS new,
            {kind:String} = 'check' AND of_old.asked AND NOT of_old.scored AND NOT failed AS silent_old,
            {kind:String} = 'check' AND of_new.asked AND NOT of_new.scored AND status = 'ok' AS silent_new
        FROM copies
        INNER JOIN served ON copies.inference_id = served.id
        LEFT JOIN (SELECT * FROM said WHERE target = 'inference') AS of_old ON copies.inference_id = of_old.target_id
        LEFT JOIN (SELECT * FROM said WHERE target = 'shadow') AS of_new ON copies.id = of_new.target_id
    ),
    by_user AS
    (
        SELECT
            sticky,
            countIf(counts) AS rows,
            sumIf(w, counts) AS n,
            [sumIf(w * old, counts), sumIf(w * new, counts), sumIf(w * (new - old), counts)] AS y,
            [
                sumIf(w * old * old, counts),
                sumIf(w * new * new, counts),
                sumIf(w * (new - old) * (new - old), counts)
            ] AS y2,
            [countIf(silent_old), countIf(silent_new), countIf(silent_old OR silent_new)] AS silent
        FROM pairs
        GROUP BY sticky
    )
SELECT
    side,
    countIf(n > 0) AS users,
    sum(by_user.rows) AS rows,
    sum(n) AS weights,
    sum(total_of_user) AS total,
    sum(squares_of_user) AS squares,
    sum(total_of_user * total_of_user) AS yy,
    sum(total_of_user * n) AS yn,
    sum(n * n) AS nn,
    sum(silent_of_user) AS abstained
FROM by_user
ARRAY JOIN
    ['stable', 'candidate', 'difference'] AS side,
    y AS total_of_user,
    y2 AS squares_of_user,
    silent AS silent_of_user
GROUP BY side
