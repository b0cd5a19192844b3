-- What did judges say of a candidate's answers beside production's, by rollout, judge and rubric? Alike comparisons
-- are one row with their count; difference is the candidate's length less production's, in characters (of its tool
-- calls where an answer has no text). '' and the nil UUID mean every one. flagged counts comparisons with
-- instruction-like text; the expected score is P(win) + P(tie)/2 where the judge gave probabilities.
WITH
    said AS
    (
        SELECT target_id, rollout_id, adapter, judge, rubric, rubric_hash, score, inclusion_probability, distribution, rationale
        FROM ratchet.scores
        WHERE kind = 'pairwise' AND target = 'shadow' AND position(rubric, '/') = 0
          AND ({task:String} = '' OR task = {task:String})
          AND ({rollout_id:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR rollout_id = {rollout_id:UUID})
    ),
    candidates AS
    (
        SELECT id, inference_id, if(content != '', lengthUTF8(content), lengthUTF8(JSONExtractRaw(response, 'tool_calls'))) AS size
        FROM ratchet.shadows_log
        WHERE id IN (SELECT target_id FROM said)
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    ),
    served AS
    (
        SELECT id, if(content != '', lengthUTF8(content), lengthUTF8(JSONExtractRaw(response, 'tool_calls'))) AS size
        FROM ratchet.inferences_log
        WHERE id IN (SELECT inference_id FROM candidates)
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    )
SELECT
    rollout_id,
    adapter,
    judge,
    rubric,
    rubric_hash,
    score,
    toInt64(candidates.size) - toInt64(served.size) AS difference,
    1 / inclusion_probability AS weight,
    count() AS n,
    countIf(startsWith(rationale, '[instruction-like')) AS flagged,
    countIf(notEmpty(distribution)) AS with_probabilities,
    sumIf(distribution['win'] + distribution['tie'] / 2, notEmpty(distribution)) AS expected_sum
FROM said
INNER JOIN candidates ON said.target_id = candidates.id
INNER JOIN served ON candidates.inference_id = served.id
GROUP BY rollout_id, adapter, judge, rubric, rubric_hash, score, difference, weight
ORDER BY rollout_id, adapter, judge, rubric, rubric_hash, score, difference, weight
