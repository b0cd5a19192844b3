-- Whom a call's figures are clustered by, as services/rules/routing.sticky_key has it: the user, else the conversation,
-- else the request alone. Hashed once when it is written, since rollouts group by it every few seconds.
ALTER TABLE ratchet.inferences_log
    ADD COLUMN IF NOT EXISTS sticky UInt64
    MATERIALIZED cityHash64(multiIf(user != '', user, conversation_id != '', conversation_id, toString(id)));

-- A mirrored copy is its user's, too.
ALTER TABLE ratchet.shadows_log
    ADD COLUMN IF NOT EXISTS sticky UInt64
    MATERIALIZED cityHash64(multiIf(user != '', user, conversation_id != '', conversation_id, toString(inference_id)));
