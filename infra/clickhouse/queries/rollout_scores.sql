-- What did a check or a judge say of one arm's answers (arms as in rollout_calls.sql)?
-- The last score of an answer counts, of several judges their common word. Sampled scores carry the inverse of their inclusion probability,
-- and n is Kish's effective size. failures_count: a call without an answer counts as 0, scored or not.
WITH
    calls AS
    (
        SELECT id, status IN ('error', 'timeout') AS failed FROM ratchet.inferences
        WHERE {arm:String} IN ('stable', 'canary') AND stage = {arm:String} AND status != 'cancelled'
          AND task = {task:String} AND rollout_id = {rollout_id:UUID}
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        UNION ALL
        SELECT id, status IN ('error', 'timeout') AS failed FROM ratchet.shadows
        WHERE {arm:String} = 'shadow' AND status != 'cancelled'
          AND task = {task:String} AND rollout_id = {rollout_id:UUID}
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
        UNION ALL
        SELECT id, status IN ('error', 'timeout') AS failed FROM ratchet.inferences
        WHERE {arm:String} = 'mirrored' AND stage = 'stable' AND status != 'cancelled'
          AND task = {task:String} AND rollout_id = {rollout_id:UUID}
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
          AND id IN
          (
              SELECT inference_id FROM ratchet.shadows
              WHERE {arm:String} = 'mirrored' AND task = {task:String} AND rollout_id = {rollout_id:UUID}
          )
    ),
    said AS
    (
        SELECT
            target_id,
            argMax(assumeNotNull(score), (basis = 'combined', at, ingested_at)) AS value,
            argMax(1 / inclusion_probability, (basis = 'combined', at, ingested_at)) AS weight
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = {kind:String} AND rubric = {rubric:String} AND score IS NOT NULL
          AND target IN ('inference', 'shadow') AND target_id IN (SELECT id FROM calls)
        GROUP BY target_id
    ),
    seen AS
    (
        SELECT if(failed AND {failures_count:Bool}, 0., value) AS x, if(weight > 0, weight, 1.) AS w
        FROM calls LEFT JOIN said ON calls.id = said.target_id
        -- an unmatched row of the left join has weight 0
        WHERE weight > 0 OR (failed AND {failures_count:Bool})
    )
SELECT
    count() AS rows,
    sum(w) * sum(w) / sum(w * w) AS n,
    sum(w * x) / sum(w) AS mean,
    sum(w * x * x) / sum(w) AS mean_square
FROM seen
