-- Hourly rollups that are exact whatever was redelivered (docs/decisions/014).
-- A materialized view alone would add a redelivered row twice, so it only notes which hours were touched.
-- Ingest rolls such an hour up, whole, once it is quiet; until then the documented view counts it live.

CREATE TABLE IF NOT EXISTS ratchet.hours_log
(
    source LowCardinality(String),
    task LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    noted_at SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    rolled_upto SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    live_until SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (source, task, hour);

-- Hours that their source counts live: touched since they were rolled up, or rolled up only just now, so that
-- whoever reads this an instant before the rollup itself still counts each event once.
CREATE VIEW IF NOT EXISTS ratchet.hours_open AS
SELECT source, task, hour
FROM ratchet.hours_log
GROUP BY source, task, hour
HAVING max(noted_at) > max(rolled_upto) OR max(live_until) > now64(6);

-- The length of an answer is written once instead of being counted at each reading.
ALTER TABLE ratchet.inferences_log ADD COLUMN IF NOT EXISTS characters UInt32 MATERIALIZED lengthUTF8(content) CODEC(ZSTD);

CREATE TABLE IF NOT EXISTS ratchet.hourly_log
(
    task LowCardinality(String),
    adapter LowCardinality(String),
    stage LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    n UInt64,
    errors UInt64,
    timeouts UInt64,
    cancelled UInt64,
    latency AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64),
    prompt_tokens UInt64,
    completion_tokens UInt64,
    cost_usd Nullable(Float64),
    characters UInt64,
    characters_squares UInt64,
    -- how many answers have 0, 1, 2–3, 4–7, … characters
    length_bins Map(UInt8, UInt64),
    -- events in the whole hour: rows that expired since must not take a rolled hour with them
    hour_n UInt64,
    upto DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(hour_n)
PARTITION BY toYear(hour)
ORDER BY (task, hour, adapter, stage);

-- What the rows of open hours say now. (GLOBAL: on a cluster the hours are sent to the shards.)
CREATE VIEW IF NOT EXISTS ratchet.hourly_now AS
SELECT
    task,
    adapter,
    stage,
    toStartOfHour(at) AS hour,
    count() AS n,
    countIf(status = 'error' OR status = 'timeout') AS errors,
    countIf(status = 'timeout') AS timeouts,
    countIf(status = 'cancelled') AS cancelled,
    quantilesTDigestState(0.5, 0.95, 0.99)(latency_ms) AS latency,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_usd) AS cost_usd,
    sum(toUInt64(event.characters)) AS characters,
    sum(toUInt64(event.characters) * event.characters) AS characters_squares,
    sumMap(map(toUInt8(ceil(log2(event.characters + 1))), toUInt64(1))) AS length_bins
FROM ratchet.inferences_log AS event FINAL
WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'inferences')
GROUP BY task, adapter, stage, hour;

-- Of what was ever said of an hour the word that counts the most events holds, and of those the newest.
CREATE VIEW IF NOT EXISTS ratchet.hourly_states AS
SELECT * EXCEPT (hour_n, upto, said)
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_log FINAL
        UNION ALL
        SELECT *, sum(n) OVER (PARTITION BY task, hour) AS hour_n, toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_now
    )
)
WHERE (hour_n, upto) = said;

CREATE OR REPLACE VIEW ratchet.hourly AS
SELECT
    task,
    adapter,
    stage,
    hour,
    n,
    errors,
    finalizeAggregation(latency)[1] AS latency_p50_ms,
    finalizeAggregation(latency)[2] AS latency_p95_ms,
    prompt_tokens,
    completion_tokens,
    cost_usd,
    timeouts,
    cancelled,
    finalizeAggregation(latency)[3] AS latency_p99_ms,
    characters,
    characters_squares,
    length_bins
FROM ratchet.hourly_states;

CREATE TABLE IF NOT EXISTS ratchet.hourly_scores_log
(
    task LowCardinality(String),
    adapter LowCardinality(String),
    target LowCardinality(String),
    kind LowCardinality(String),
    judge LowCardinality(String),
    rubric LowCardinality(String),
    rubric_hash LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    n UInt64,
    abstained UInt64,
    total Float64,
    squares Float64,
    -- each score counts as often as its inclusion probability says that it stands for
    weights Float64,
    weights_squares Float64,
    weighted_total Float64,
    weighted_squares Float64,
    prompt_tokens UInt64,
    completion_tokens UInt64,
    hour_n UInt64,
    upto DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(hour_n)
PARTITION BY toYear(hour)
ORDER BY (task, hour, kind, rubric, rubric_hash, judge, target, adapter);

CREATE VIEW IF NOT EXISTS ratchet.hourly_scores_now AS
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
WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'scores')
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
    completion_tokens
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

CREATE TABLE IF NOT EXISTS ratchet.hourly_feedback_log
(
    task LowCardinality(String),
    kind LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    n UInt64,
    numbers UInt64,
    positive UInt64,
    total Float64,
    squares Float64,
    hour_n UInt64,
    upto DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(hour_n)
PARTITION BY toYear(hour)
ORDER BY (task, hour, kind);

CREATE VIEW IF NOT EXISTS ratchet.hourly_feedback_now AS
SELECT
    task,
    kind,
    toStartOfHour(at) AS hour,
    count() AS n,
    count(number) AS numbers,
    countIf(number > 0.5) AS positive,
    ifNull(sum(number), 0) AS total,
    ifNull(sum(number * number), 0) AS squares
FROM ratchet.feedback_log FINAL
WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'feedback')
GROUP BY task, kind, hour;

-- Satisfaction and completion by the hour they were said in: total / numbers is the share of thumbs up, the mean
-- rating or the share of completed tasks. Comments, corrections and preferences have no number.
CREATE VIEW IF NOT EXISTS ratchet.hourly_feedback AS
SELECT * EXCEPT (hour_n, upto, said)
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_feedback_log FINAL
        UNION ALL
        SELECT *, sum(n) OVER (PARTITION BY task, hour) AS hour_n, toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_feedback_now
    )
)
WHERE (hour_n, upto) = said;

CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.hours_of_inferences TO ratchet.hours_log AS
SELECT 'inferences' AS source, task, toStartOfHour(at) AS hour, max(now64(6, 'UTC')) AS noted_at
FROM ratchet.inferences_log
GROUP BY task, hour;

CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.hours_of_scores TO ratchet.hours_log AS
SELECT 'scores' AS source, task, toStartOfHour(at) AS hour, max(now64(6, 'UTC')) AS noted_at
FROM ratchet.scores_log
GROUP BY task, hour;

CREATE MATERIALIZED VIEW IF NOT EXISTS ratchet.hours_of_feedback TO ratchet.hours_log AS
SELECT 'feedback' AS source, task, toStartOfHour(at) AS hour, max(now64(6, 'UTC')) AS noted_at
FROM ratchet.feedback_log
GROUP BY task, hour;

-- What was stored before the notes began: quiet for long.
INSERT INTO ratchet.hours_log (source, task, hour, noted_at)
SELECT 'inferences', task, toStartOfHour(at) AS hour, toDateTime64(1, 6, 'UTC') FROM ratchet.inferences_log GROUP BY task, hour
UNION ALL
SELECT 'scores', task, toStartOfHour(at) AS hour, toDateTime64(1, 6, 'UTC') FROM ratchet.scores_log GROUP BY task, hour
UNION ALL
SELECT 'feedback', task, toStartOfHour(at) AS hour, toDateTime64(1, 6, 'UTC') FROM ratchet.feedback_log GROUP BY task, hour;
