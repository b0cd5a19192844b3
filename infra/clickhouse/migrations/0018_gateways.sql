-- Which routing tables each gateway had in force, when: what it said of itself every few seconds. Kafka keeps a day of
-- it, so a rebuild carries these rows over.
CREATE TABLE IF NOT EXISTS ratchet.gateways_log
(
    id UUID,
    at DateTime64(6, 'UTC') CODEC(Delta, ZSTD),
    gateway LowCardinality(String),
    state LowCardinality(String),
    tables Map(LowCardinality(String), UInt64),
    since Map(LowCardinality(String), DateTime64(6, 'UTC')),
    in_flight Map(LowCardinality(String), UInt32),
    last_request Map(LowCardinality(String), DateTime64(6, 'UTC')),
    ingested_at DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (gateway, at, id)
TTL toDateTime(at) + toIntervalDay(30);

CREATE VIEW IF NOT EXISTS ratchet.gateways AS SELECT * FROM ratchet.gateways_log FINAL;
