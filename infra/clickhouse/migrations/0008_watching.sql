-- What drift's rules said hour by hour, and what more an alert says (docs/decisions/021).
CREATE TABLE IF NOT EXISTS ratchet.drift_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    task LowCardinality(String),
    adapter LowCardinality(String),
    metric LowCardinality(String),
    rule LowCardinality(String),
    verdict LowCardinality(String),
    n_baseline UInt64,
    n UInt64,
    baseline Nullable(Float64),
    value Nullable(Float64),
    effect_name LowCardinality(String),
    effect Nullable(Float64),
    threshold Nullable(Float64),
    p_value Nullable(Float64),
    q_value Nullable(Float64),
    streak UInt32,
    calm UInt32,
    reason String CODEC(ZSTD(3)),
    said String CODEC(ZSTD(3)),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(ingested_at)
PARTITION BY toYYYYMM(at)
ORDER BY (task, at, id);

CREATE VIEW IF NOT EXISTS ratchet.drift AS SELECT * FROM ratchet.drift_log FINAL;

ALTER TABLE ratchet.alerts_log ADD COLUMN IF NOT EXISTS adapter LowCardinality(String) AFTER task;
ALTER TABLE ratchet.alerts_log ADD COLUMN IF NOT EXISTS key String AFTER kind;
ALTER TABLE ratchet.alerts_log ADD COLUMN IF NOT EXISTS since Nullable(DateTime64(6, 'UTC')) AFTER state;
ALTER TABLE ratchet.alerts_log ADD COLUMN IF NOT EXISTS runbook String AFTER action;
ALTER TABLE ratchet.alerts_log ADD COLUMN IF NOT EXISTS false_alarms_per_year Nullable(Float64) AFTER runbook;
-- false_alarm_rate stays, empty: nothing ever filled it, and on a cluster migrations drop no columns.

CREATE OR REPLACE VIEW ratchet.alerts AS SELECT * FROM ratchet.alerts_log FINAL;

-- Which alert a decision about training is about.
ALTER TABLE ratchet.training_log ADD COLUMN IF NOT EXISTS alert_id Nullable(UUID) AFTER params;

CREATE OR REPLACE VIEW ratchet.training_events AS SELECT * FROM ratchet.training_log FINAL;
