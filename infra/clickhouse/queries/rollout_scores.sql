-- What did a check or a judge say of one arm's answers (arms as in rollout_calls.sql)?
-- The last score of an answer counts, of one judge and one wording of its rubric ('' means any; of several judges
-- then their common word). Sampled scores carry the inverse of their inclusion probability,
-- and n is Kish's effective size. failures_count: a call without an answer counts as 0, scored or not.
-- An answer of which only an abstention was said is not in n: it is counted apart, as abstained.
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
            1 AS given,
            countIf(score IS NOT NULL) > 0 AS scored,
            -- a check completes its task or does not, however close a graded one came
            argMaxIf(
                multiIf(kind = 'check' AND verdict = 'pass', 1., kind = 'check' AND verdict = 'fail', 0., score),
                (basis = 'combined', at, ingested_at),
                score IS NOT NULL
            ) AS value,
            argMaxIf(1 / inclusion_probability, (basis = 'combined', at, ingested_at), score IS NOT NULL) AS weight
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = {kind:String} AND rubric = {rubric:String}
          AND {judge:String} IN ('', judge) AND {rubric_hash:String} IN ('', rubric_hash)
          AND target IN ('inference', 'shadow') AND target_id IN (SELECT id FROM calls)
        GROUP BY target_id
    ),
    seen AS
    (
        SELECT
            scored OR (failed AND {failures_count:Bool}) AS counts,
            if(failed AND {failures_count:Bool}, 0., ifNull(value, 0.)) AS x,
            if(scored, weight, 1.) AS w,
            given AND NOT scored AND NOT failed AS abstained
        FROM calls LEFT JOIN said ON calls.id = said.target_id
    )
SELECT
    countIf(counts) AS rows,
    sumIf(w, counts) * sumIf(w, counts) / sumIf(w * w, counts) AS n,
    sumIf(w * x, counts) / sumIf(w, counts) AS mean,
    sumIf(w * x * x, counts) / sumIf(w, counts) AS mean_square,
    countIf(abstained) AS abstained
FROM seen
