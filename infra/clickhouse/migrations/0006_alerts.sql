-- How every alert stands: a later event with its id replaces the row.
CREATE TABLE IF NOT EXISTS ratchet.alerts_log
(
    id UUID,
    at DateTime64(6, 'UTC'),
    task LowCardinality(String),
    kind LowCardinality(String),
    severity LowCardinality(String),
    state LowCardinality(String),
    title String,
    summary String CODEC(ZSTD(3)),
    action String,
    false_alarm_rate Nullable(Float64),
    evidence String CODEC(ZSTD(3)),
    source LowCardinality(String),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (task, id);

CREATE VIEW IF NOT EXISTS ratchet.alerts AS SELECT * FROM ratchet.alerts_log FINAL;
