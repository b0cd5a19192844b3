-- What did a judge say of the candidate's answers beside production's, in both orders: ½ for a win, 0 for a tie, −½ for a
-- loss? Clustered by user (as rollout_calls.sql) and weighted (as rollout_judged.sql). Of one judge and one wording of
-- its rubric the last word on a pair counts.
WITH
    said AS
    (
        SELECT
            target_id,
            countIf(score IS NOT NULL) > 0 AS scored,
            argMaxIf(score, ifNull(judged_at, ingested_at), score IS NOT NULL) AS won,
            ifNull(won, 0.5) - 0.5 AS x,
            argMaxIf(1 / inclusion_probability, ifNull(judged_at, ingested_at), score IS NOT NULL) AS w
        FROM ratchet.scores_log
        WHERE task = {task:String} AND kind = 'pairwise' AND rubric = {rubric:String} AND target = 'shadow'
          AND judge = {judge:String} AND rubric_hash = {rubric_hash:String} AND at >= {since:DateTime64(6, 'UTC')}
        GROUP BY target_id
    ),
    by_user AS
    (
        SELECT
            sticky,
            countIf(scored) AS rows,
            sumIf(w, scored) AS n,
            sumIf(w * x, scored) AS y,
            sumIf(w * x * x, scored) AS y2,
            countIf(NOT scored) AS silent
        FROM
        (
            SELECT id, sticky
            FROM ratchet.shadows_log FINAL
            WHERE task = {task:String} AND rollout_id = {rollout_id:UUID} AND adapter = {candidate:String}
              AND status = 'ok'
              AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        ) AS copies
        INNER JOIN said ON copies.id = said.target_id
        GROUP BY sticky
    )
SELECT
    'difference' AS side,
    countIf(n > 0) AS users,
    sum(by_user.rows) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y2) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    sum(silent) AS abstained
FROM by_user
