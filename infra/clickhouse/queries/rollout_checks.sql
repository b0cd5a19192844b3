-- How many answers of both arms pass a check, by stage and clustered by user (as rollout_calls.sql)? passing is what a
-- passed one counts, 1 or (of a refusal check, whose failures are counted) 0. The last verdict on an answer counts.
-- An answer of which only an abstention was said is counted apart. failures_count: a call without an answer counts as 0,
-- whatever was said of it.
-- (One GROUP BY over calls and verdicts together, instead of a join of both: half the time, and no FINAL is needed.)
WITH
    answers AS
    (
        SELECT
            max(stage_and_arm) AS stage_and_arm,
            max(sticky) AS sticky,
            max(failed) AS failed,
            max(asked) AS asked,
            countIf(value IS NOT NULL) > 0 AS scored,
            argMaxIf(value, said_at, value IS NOT NULL) AS x
        FROM
        (
            SELECT
                id,
                toUInt32(2 * arrayFirstIndex(
                    (begin, end) -> at >= begin AND at < end,
                    {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
                ) + (stage = 'canary')) AS stage_and_arm,
                sticky,
                status IN ('error', 'timeout') AS failed,
                false AS asked,
                CAST(NULL, 'Nullable(Float64)') AS value,
                toInt64(0) AS said_at
            FROM ratchet.inferences_log
            WHERE task = {task:String} AND rollout_id = {rollout_id:UUID}
              AND stage IN ('stable', 'canary') AND status != 'cancelled'
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
            UNION ALL
            SELECT
                target_id AS id,
                toUInt32(0),
                toUInt64(0),
                false,
                true,
                -- a check is passed or is not, however close a graded one came
                if(score IS NULL, NULL, multiIf(verdict = 'pass', 1., verdict = 'fail', 0., assumeNotNull(score))) AS passed,
                toUnixTimestamp64Milli(ifNull(judged_at, ingested_at))
            FROM ratchet.scores_log
            WHERE task = {task:String} AND kind = 'check' AND rubric = {rubric:String} AND target = 'inference'
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
        )
        GROUP BY id
        HAVING stage_and_arm > 1
    ),
    by_user AS
    (
        SELECT
            stage_and_arm,
            sticky,
            toFloat64(countIf(counts)) AS n,
            sumIf(value, counts) AS y,
            sumIf(value * value, counts) AS y2,
            countIf(asked AND NOT scored AND NOT failed) AS abstained
        FROM
        (
            SELECT
                *,
                if({failures_count:Bool}, scored OR failed, scored) AS counts,
                if(failed AND {failures_count:Bool}, 0., if({passing:Bool}, x, 1 - x)) AS value
            FROM answers
        )
        GROUP BY stage_and_arm, sticky
    )
SELECT
    intDiv(stage_and_arm, 2) AS stage_number,
    stage_and_arm % 2 AS candidate,
    countIf(n > 0) AS users,
    sum(n) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y2) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    sum(abstained) AS abstained
FROM by_user
GROUP BY stage_and_arm
