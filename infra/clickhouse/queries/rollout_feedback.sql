-- What did users say of one arm's answers ('stable' or 'canary'): thumbs or outcomes, the last word each?
-- Feedback on a whole conversation counts once, for the arm's last answer in it: never for a call that
-- failed, since what the user then saw was a fallback's.
-- failures_count: a call without an answer counts as 0, whether or not somebody said so.
WITH
    calls AS
    (
        SELECT
            id,
            conversation_id,
            status IN ('error', 'timeout') AS failed,
            conversation_id != '' AND NOT failed
                AND row_number() OVER (PARTITION BY conversation_id, failed ORDER BY at DESC, id DESC) = 1
                AS last_of_conversation
        FROM ratchet.inferences
        WHERE stage = {arm:String} AND status != 'cancelled'
          AND task = {task:String} AND rollout_id = {rollout_id:UUID}
          AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    ),
    on_call AS
    (
        SELECT assumeNotNull(inference_id) AS call_id, argMax(assumeNotNull(number), at) AS value, 1 AS given
        FROM ratchet.feedback
        WHERE task = {task:String} AND kind = {kind:String} AND number IS NOT NULL AND inference_id IS NOT NULL
          AND at >= {since:DateTime64(6, 'UTC')}
        GROUP BY call_id
    ),
    on_conversation AS
    (
        SELECT conversation_id AS talk_id, argMax(assumeNotNull(number), at) AS value, 1 AS given
        FROM ratchet.feedback
        WHERE task = {task:String} AND kind = {kind:String} AND number IS NOT NULL AND inference_id IS NULL
          AND at >= {since:DateTime64(6, 'UTC')}
        GROUP BY talk_id
    ),
    seen AS
    (
        SELECT
            multiIf(
                failed AND {failures_count:Bool}, 0.,
                on_call.given = 1, on_call.value,
                on_conversation.value
            ) AS x
        FROM calls
        LEFT JOIN on_call ON calls.id = on_call.call_id
        LEFT JOIN on_conversation ON calls.conversation_id = on_conversation.talk_id
        WHERE on_call.given = 1
           OR (on_conversation.given = 1 AND last_of_conversation)
           OR (failed AND {failures_count:Bool})
    )
SELECT count() AS n, sum(x) AS total, sum(x * x) AS squares FROM seen
