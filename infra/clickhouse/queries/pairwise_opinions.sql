-- What did judges say of a task's preference pairs? A win agrees with the people who chose. Only opinions on the texts
-- that a pair has now count (target_id as in pairwise_pairs_left.sql), one each; difference is in characters of the
-- chosen less the rejected.
WITH
    char(31) AS us,
    now_built AS
    (
        SELECT
            lower(hex(SHA256(concat('pair', us, pair_id, us, chosen, us, rejected)))) AS h,
            toUUID(concat('00000000-0000-7', substring(h, 2, 3), '-',
                substring('89ab', bitAnd(position('0123456789abcdef', substring(h, 5, 1)) - 1, 3) + 1, 1), substring(h, 6, 3),
                '-', substring(h, 9, 12))) AS target_id,
            toInt64(lengthUTF8(JSONExtractString(chosen, 1, 'content')))
                - toInt64(lengthUTF8(JSONExtractString(rejected, 1, 'content'))) AS difference
        FROM ratchet.pairs
        WHERE task = {task:String} AND status = 'built'
    ),
    said AS
    (
        SELECT target_id, judge, rubric, rubric_hash, score, inclusion_probability, distribution, rationale
        FROM ratchet.scores
        WHERE task = {task:String} AND kind = 'pairwise' AND target = 'pair' AND position(rubric, '/') = 0
        ORDER BY ingested_at DESC
        LIMIT 1 BY target_id, judge, rubric, rubric_hash
    )
SELECT
    judge,
    rubric,
    rubric_hash,
    score,
    difference,
    1 / inclusion_probability AS weight,
    count() AS n,
    countIf(startsWith(rationale, '[instruction-like')) AS flagged,
    countIf(notEmpty(distribution)) AS with_probabilities,
    sumIf(distribution['win'] + distribution['tie'] / 2, notEmpty(distribution)) AS expected_sum
FROM said
INNER JOIN now_built ON said.target_id = now_built.target_id
GROUP BY judge, rubric, rubric_hash, score, difference, weight
ORDER BY judge, rubric, rubric_hash, score, difference, weight
