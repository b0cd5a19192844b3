-- Versions of a schema lie side by side in a table; and an event's own bytes have no field that is not a column.
ALTER TABLE ratchet.inferences_log ADD COLUMN IF NOT EXISTS schema LowCardinality(String) DEFAULT 'inference.v1';
ALTER TABLE ratchet.shadows_log ADD COLUMN IF NOT EXISTS schema LowCardinality(String) DEFAULT 'shadow.v1';
CREATE OR REPLACE VIEW ratchet.inferences AS SELECT * FROM ratchet.inferences_log FINAL;
CREATE OR REPLACE VIEW ratchet.shadows AS SELECT * FROM ratchet.shadows_log FINAL;
