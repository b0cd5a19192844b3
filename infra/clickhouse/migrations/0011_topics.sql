-- The topics of a pinned baseline: centroids, their words and how many texts of the baseline each has. Made once and
-- kept, because the baseline's own rows expire.
CREATE TABLE IF NOT EXISTS ratchet.topics_log
(
    task LowCardinality(String),
    adapter LowCardinality(String),
    metric LowCardinality(String),
    baseline_since DateTime64(6, 'UTC'),
    baseline_until DateTime64(6, 'UTC'),
    model LowCardinality(String),
    version String,
    centroids Array(Array(Float32)),
    labels Array(String),
    counts Array(UInt32),
    made_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(made_at)
ORDER BY (task, adapter, metric, baseline_since, baseline_until, model);

CREATE VIEW IF NOT EXISTS ratchet.topics AS SELECT * FROM ratchet.topics_log FINAL;
