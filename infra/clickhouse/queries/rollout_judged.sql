-- What did a judge say of both arms' answers, by stage and clustered by user (as rollout_calls.sql)? Of one judge and
-- one wording of its rubric the last score of an answer counts. A score stands for as many answers as its inclusion
-- probability says: y sums weighted scores, n the weights. (It sees a sample, and abstains for reasons that are not the
-- answer's: neither a failed call nor an abstention is in any figure.)
WITH
    said AS
    (
        SELECT
            target_id,
            argMax(assumeNotNull(score), ifNull(judged_at, ingested_at)) AS x,
            argMax(1 / inclusion_probability, ifNull(judged_at, ingested_at)) AS w
        FROM ratchet.scores_log
        WHERE task = {task:String} AND kind = 'pointwise' AND rubric = {rubric:String} AND target = 'inference'
          AND judge = {judge:String} AND rubric_hash = {rubric_hash:String} AND score IS NOT NULL
          AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
        GROUP BY target_id
    ),
    by_user AS
    (
        SELECT stage_and_arm, sticky, count() AS rows, sum(w) AS n, sum(w * x) AS y, sum(w * x * x) AS y2
        FROM
        (
            SELECT
                id,
                toUInt32(2 * arrayFirstIndex(
                    (begin, end) -> at >= begin AND at < end,
                    {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
                ) + (stage = 'canary')) AS stage_and_arm,
                sticky
            FROM ratchet.inferences_log FINAL
            WHERE task = {task:String} AND rollout_id = {rollout_id:UUID}
              AND stage IN ('stable', 'canary') AND status != 'cancelled'
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
              AND id IN (SELECT target_id FROM said)
        ) AS calls
        INNER JOIN said ON calls.id = said.target_id
        WHERE stage_and_arm > 1
        GROUP BY stage_and_arm, sticky
    )
SELECT
    intDiv(stage_and_arm, 2) AS stage_number,
    stage_and_arm % 2 AS candidate,
    count() AS users,
    sum(by_user.rows) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y2) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    0 AS abstained
FROM by_user
GROUP BY stage_and_arm
