-- Hashes are hex digits, which LZ4 cannot halve and ZSTD can: 28% fewer bytes an inference (docs/experiments.md,
-- 2026-11-25). What is stored already is packed anew when it is merged.
ALTER TABLE ratchet.inferences_log
    MODIFY COLUMN conversation_id CODEC(ZSTD),
    MODIFY COLUMN user CODEC(ZSTD),
    MODIFY COLUMN prompt_hash CODEC(ZSTD),
    MODIFY COLUMN latency_ms CODEC(ZSTD),
    MODIFY COLUMN ttft_ms CODEC(ZSTD),
    MODIFY COLUMN prompt_tokens CODEC(T64, ZSTD),
    MODIFY COLUMN completion_tokens CODEC(T64, ZSTD);
ALTER TABLE ratchet.shadows_log
    MODIFY COLUMN conversation_id CODEC(ZSTD),
    MODIFY COLUMN user CODEC(ZSTD),
    MODIFY COLUMN prompt_hash CODEC(ZSTD),
    MODIFY COLUMN latency_ms CODEC(ZSTD),
    MODIFY COLUMN ttft_ms CODEC(ZSTD),
    MODIFY COLUMN prompt_tokens CODEC(T64, ZSTD),
    MODIFY COLUMN completion_tokens CODEC(T64, ZSTD);
ALTER TABLE ratchet.feedback_log
    MODIFY COLUMN conversation_id CODEC(ZSTD),
    MODIFY COLUMN user CODEC(ZSTD);
