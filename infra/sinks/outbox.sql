CREATE TABLE IF NOT EXISTS alerts
(
    id TEXT PRIMARY KEY,
    at REAL NOT NULL,
    first_at REAL NOT NULL,
    state TEXT NOT NULL,
    version INTEGER NOT NULL,
    event BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS deliveries
(
    sink TEXT NOT NULL,
    alert TEXT NOT NULL REFERENCES alerts (id) ON DELETE CASCADE,
    told_state TEXT NOT NULL DEFAULT '',
    told_severity TEXT NOT NULL DEFAULT '',
    told_at REAL NOT NULL DEFAULT 0,
    told_event_at REAL NOT NULL DEFAULT 0,
    next_at REAL,
    claimed_until REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (sink, alert)
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (sink, next_at) WHERE next_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS sinks
(
    name TEXT PRIMARY KEY,
    taken INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    failing_since REAL,
    problem TEXT NOT NULL DEFAULT '',
    wait_until REAL NOT NULL DEFAULT 0
);
