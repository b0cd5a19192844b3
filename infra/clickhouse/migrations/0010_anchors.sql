-- Scores of frozen answers (target 'anchor') and experts' labels (kind 'label') are no traffic: the documented view
-- of scores and the rollups leave them out, so no mean counts them, whoever asks; they have views of their own.
CREATE OR REPLACE VIEW ratchet.scores AS
SELECT * FROM ratchet.scores_log FINAL
WHERE target NOT IN ('anchor') AND kind NOT IN ('label');

CREATE OR REPLACE VIEW ratchet.anchor_scores AS SELECT * FROM ratchet.scores_log FINAL WHERE target IN ('anchor');

CREATE OR REPLACE VIEW ratchet.labels AS
SELECT * FROM ratchet.scores_log FINAL WHERE kind IN ('label');

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
    sum(completion_tokens) AS completion_tokens
FROM ratchet.scores_log FINAL
WHERE target NOT IN ('anchor') AND kind NOT IN ('label')
  AND (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'scores')
GROUP BY task, adapter, target, kind, judge, rubric, rubric_hash, hour;
