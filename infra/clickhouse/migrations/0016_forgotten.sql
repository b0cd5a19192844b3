-- Who asked to be forgotten, up to when, and which events and judged texts that were. `who` is the SHA-256 of the user
-- as events carry it, so the table names nobody; topics may hold the events longer, and whoever reads them into the
-- tables again takes these away again.
CREATE TABLE IF NOT EXISTS ratchet.forgotten_log
(
    who String,
    tenant LowCardinality(String),
    until DateTime64(6, 'UTC'),
    kind LowCardinality(String),
    event_id UUID,
    at DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (who, tenant, kind, event_id, until);

CREATE VIEW IF NOT EXISTS ratchet.forgotten AS SELECT * FROM ratchet.forgotten_log FINAL;
