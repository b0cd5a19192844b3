-- One log table an event kind. A redelivered event has the same sorting key, so
-- ReplacingMergeTree keeps one of it; the view of the documented name (without _log)
-- reads with FINAL, so each event counts once even before the merge.

CREATE TABLE IF NOT EXISTS ratchet.inferences_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    tenant LowCardinality(String),
    conversation_id String,
    user String,
    adapter LowCardinality(String),
    stage LowCardinality(String),
    rollout_id Nullable(UUID),
    base_model LowCardinality(String),
    prompt_hash String,
    request String CODEC(ZSTD(3)),
    response String CODEC(ZSTD(3)),
    content String CODEC(ZSTD(3)),
    status LowCardinality(String),
    error String,
    latency_ms Float64,
    ttft_ms Nullable(Float64),
    prompt_tokens UInt32,
    completion_tokens UInt32,
    cost_usd Nullable(Float64),
    stream Bool,
    source LowCardinality(String),
    tags Map(String, String),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (task, at, id);

-- UUIDs sort badly, so look-ups by id go through a bloom filter.
ALTER TABLE ratchet.inferences_log ADD INDEX IF NOT EXISTS by_id id TYPE bloom_filter(0.001) GRANULARITY 1;
ALTER TABLE ratchet.inferences_log ADD INDEX IF NOT EXISTS by_prompt prompt_hash TYPE bloom_filter(0.01) GRANULARITY 1;

CREATE VIEW IF NOT EXISTS ratchet.inferences AS SELECT * FROM ratchet.inferences_log FINAL;

CREATE TABLE IF NOT EXISTS ratchet.shadows_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    inference_id UUID,
    task LowCardinality(String),
    tenant LowCardinality(String),
    conversation_id String,
    user String,
    adapter LowCardinality(String),
    stage LowCardinality(String),
    rollout_id Nullable(UUID),
    base_model LowCardinality(String),
    prompt_hash String,
    request String CODEC(ZSTD(3)),
    response String CODEC(ZSTD(3)),
    content String CODEC(ZSTD(3)),
    status LowCardinality(String),
    error String,
    latency_ms Float64,
    ttft_ms Nullable(Float64),
    prompt_tokens UInt32,
    completion_tokens UInt32,
    cost_usd Nullable(Float64),
    stream Bool,
    source LowCardinality(String),
    tags Map(String, String),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (task, at, id);

CREATE VIEW IF NOT EXISTS ratchet.shadows AS SELECT * FROM ratchet.shadows_log FINAL;

CREATE TABLE IF NOT EXISTS ratchet.feedback_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    tenant LowCardinality(String),
    inference_id Nullable(UUID),
    conversation_id String,
    kind LowCardinality(String),
    number Nullable(Float64),
    text String CODEC(ZSTD(3)),
    compared_with Nullable(UUID),
    user String,
    source LowCardinality(String),
    tags Map(String, String),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (task, at, id);

ALTER TABLE ratchet.feedback_log ADD INDEX IF NOT EXISTS by_inference inference_id TYPE bloom_filter(0.01) GRANULARITY 1;

CREATE VIEW IF NOT EXISTS ratchet.feedback AS SELECT * FROM ratchet.feedback_log FINAL;

CREATE TABLE IF NOT EXISTS ratchet.scores_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    adapter LowCardinality(String),
    rollout_id Nullable(UUID),
    target_id UUID,
    target LowCardinality(String),
    kind LowCardinality(String),
    judge LowCardinality(String),
    rubric LowCardinality(String),
    rubric_hash LowCardinality(String),
    score Nullable(Float64),
    distribution Map(String, Float64),
    verdict LowCardinality(String),
    rationale String CODEC(ZSTD(3)),
    inclusion_probability Float64,
    prompt_tokens UInt32,
    completion_tokens UInt32,
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (task, kind, rubric, at, id);

ALTER TABLE ratchet.scores_log ADD INDEX IF NOT EXISTS by_target target_id TYPE bloom_filter(0.01) GRANULARITY 1;

CREATE VIEW IF NOT EXISTS ratchet.scores AS SELECT * FROM ratchet.scores_log FINAL;

CREATE TABLE IF NOT EXISTS ratchet.training_log
(
    id UUID,
    at DateTime64(6, 'UTC'),
    task LowCardinality(String),
    job_id UUID,
    state LowCardinality(String),
    method LowCardinality(String),
    trigger LowCardinality(String),
    reason String,
    dataset String,
    adapter String,
    step Nullable(UInt32),
    steps Nullable(UInt32),
    metrics Map(String, Float64),
    params String,
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
ORDER BY (task, job_id, at, id);

CREATE VIEW IF NOT EXISTS ratchet.training_events AS SELECT * FROM ratchet.training_log FINAL;

CREATE VIEW IF NOT EXISTS ratchet.training_runs AS
SELECT
    task,
    job_id,
    min(at) AS started_at,
    max(at) AS updated_at,
    argMax(state, (at, state != 'progress')) AS state,
    any(method) AS method,
    argMin(trigger, at) AS trigger,
    argMax(reason, (reason != '', at)) AS reason,
    max(dataset) AS dataset,
    max(adapter) AS adapter,
    argMax(metrics, (notEmpty(metrics), at)) AS metrics
FROM ratchet.training_log FINAL
GROUP BY task, job_id;

CREATE TABLE IF NOT EXISTS ratchet.adapters_log
(
    id UUID,
    at DateTime64(6, 'UTC'),
    task LowCardinality(String),
    name String,
    status LowCardinality(String),
    base_model LowCardinality(String),
    dataset String,
    manifest String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (task, name);

CREATE VIEW IF NOT EXISTS ratchet.adapters AS SELECT * FROM ratchet.adapters_log FINAL;

-- The audit log: every decision with the evidence it saw.
CREATE TABLE IF NOT EXISTS ratchet.rollouts_log
(
    id UUID,
    at DateTime64(6, 'UTC'),
    task LowCardinality(String),
    rollout_id UUID,
    version UInt64,
    status LowCardinality(String),
    stage LowCardinality(String),
    stable String,
    candidate String,
    action LowCardinality(String),
    actor String,
    reason String,
    gates String CODEC(ZSTD(3)),
    state String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
ORDER BY (task, version, id);

CREATE VIEW IF NOT EXISTS ratchet.rollouts AS SELECT * FROM ratchet.rollouts_log FINAL;

-- A pair is derived from events; a later vote on the same two answers replaces it.
CREATE TABLE IF NOT EXISTS ratchet.pairs_log
(
    pair_id String,
    task LowCardinality(String),
    at DateTime64(6, 'UTC'),
    source LowCardinality(String),
    status LowCardinality(String),
    reason LowCardinality(String),
    split LowCardinality(String),
    conversation_id String,
    user String,
    prompt_hash String,
    prompt String CODEC(ZSTD(3)),
    chosen String CODEC(ZSTD(3)),
    rejected String CODEC(ZSTD(3)),
    chosen_adapter LowCardinality(String),
    rejected_adapter LowCardinality(String),
    weight Float64,
    confidence Float64,
    votes UInt32,
    event_ids Array(UUID),
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (task, pair_id);

CREATE VIEW IF NOT EXISTS ratchet.pairs AS SELECT * FROM ratchet.pairs_log FINAL;

CREATE TABLE IF NOT EXISTS ratchet.datasets_log
(
    version String,
    task LowCardinality(String),
    at DateTime64(6, 'UTC'),
    kind LowCardinality(String),
    path String,
    sha256 String,
    n_train UInt64,
    n_holdout UInt64,
    parent String,
    manifest String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
ORDER BY (task, version);

CREATE VIEW IF NOT EXISTS ratchet.datasets AS SELECT * FROM ratchet.datasets_log FINAL;

-- Hourly rollups as views over deduplicated rows: exact under redelivery.
CREATE VIEW IF NOT EXISTS ratchet.hourly AS
SELECT
    task,
    adapter,
    stage,
    toStartOfHour(at) AS hour,
    count() AS n,
    countIf(status = 'error' OR status = 'timeout') AS errors,
    quantileTDigest(0.5)(latency_ms) AS latency_p50_ms,
    quantileTDigest(0.95)(latency_ms) AS latency_p95_ms,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_usd) AS cost_usd
FROM ratchet.inferences_log FINAL
GROUP BY task, adapter, stage, hour;

CREATE VIEW IF NOT EXISTS ratchet.hourly_scores AS
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
    -- inverse-probability weights: a stratified sample estimates the whole traffic's mean
    sumIf(score / inclusion_probability, score IS NOT NULL) / sumIf(1 / inclusion_probability, score IS NOT NULL)
        AS mean_score
FROM ratchet.scores_log FINAL
GROUP BY task, adapter, target, kind, judge, rubric, rubric_hash, hour;
