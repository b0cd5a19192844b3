-- Completion by a check is the share of answers that pass it, as the rollout's gate counts: a graded check's mean score
-- is not that share. (Hours rolled up before have neither count: their total is, of a check without grades, the passes.)
ALTER TABLE ratchet.hourly_scores_log
    ADD COLUMN IF NOT EXISTS passes UInt64 DEFAULT 0 AFTER completion_tokens,
    ADD COLUMN IF NOT EXISTS fails UInt64 DEFAULT 0 AFTER passes;

CREATE OR REPLACE VIEW ratchet.hourly_scores_now AS
SELECT
    task,
    adapter,
    target,
    kind,
    judge,
    rubric,
    rubric_hash,
    toStartOfHour(at) AS hour,
    count() AS n,
    countIf(score IS NULL) AS abstained,
    ifNull(sum(score), 0) AS total,
    ifNull(sum(score * score), 0) AS squares,
    sumIf(1 / inclusion_probability, score IS NOT NULL) AS weights,
    sumIf(1 / (inclusion_probability * inclusion_probability), score IS NOT NULL) AS weights_squares,
    ifNull(sum(score / inclusion_probability), 0) AS weighted_total,
    ifNull(sum(score * score / inclusion_probability), 0) AS weighted_squares,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    countIf(kind = 'check' AND verdict = 'pass') AS passes,
    countIf(kind = 'check' AND verdict = 'fail') AS fails
FROM ratchet.scores_log FINAL
WHERE target NOT IN ('anchor') AND kind NOT IN ('label')
  AND (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'scores')
GROUP BY task, adapter, target, kind, judge, rubric, rubric_hash, hour;

CREATE OR REPLACE VIEW ratchet.hourly_scores AS
SELECT
    task,
    adapter,
    target,
    kind,
    judge,
    rubric,
    rubric_hash,
    hour,
    n,
    abstained,
    -- inverse-probability weights: a stratified sample estimates the whole traffic's mean
    weighted_total / weights AS mean_score,
    total,
    squares,
    weights,
    weights_squares,
    weighted_total,
    weighted_squares,
    prompt_tokens,
    completion_tokens,
    if(passes + fails = 0, toUInt64(round(total)), passes) AS passes,
    if(passes + fails = 0, toUInt64(n - abstained - round(total)), fails) AS fails
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_scores_log FINAL
        UNION ALL
        SELECT *, sum(n) OVER (PARTITION BY task, hour) AS hour_n, toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_scores_now
    )
)
WHERE (hour_n, upto) = said;
