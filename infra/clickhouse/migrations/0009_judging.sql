-- What a judge's score rests on, what it cost, and when it was paid for (at is the answer's own time).
ALTER TABLE ratchet.scores_log ADD COLUMN IF NOT EXISTS spread Nullable(Float64);
ALTER TABLE ratchet.scores_log ADD COLUMN IF NOT EXISTS basis LowCardinality(String);
ALTER TABLE ratchet.scores_log ADD COLUMN IF NOT EXISTS cost_usd Nullable(Float64);
ALTER TABLE ratchet.scores_log ADD COLUMN IF NOT EXISTS cached Bool;
ALTER TABLE ratchet.scores_log ADD COLUMN IF NOT EXISTS judged_at Nullable(DateTime64(6, 'UTC'));

-- What was spent today is asked for every few seconds.
ALTER TABLE ratchet.scores_log ADD INDEX IF NOT EXISTS by_judged judged_at TYPE minmax GRANULARITY 1;

CREATE OR REPLACE VIEW ratchet.scores AS SELECT * FROM ratchet.scores_log FINAL;
