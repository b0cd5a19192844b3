-- What did users say of both arms' answers, by stage and clustered by user (as rollout_calls.sql): thumbs or outcomes?
-- The last word on an answer counts, in the answer's own stage, however late it comes. A word on a whole conversation
-- is about the last answer in it before the word, whoever gave that: a fallback's or a pinned one's is nobody's.
-- failures_count: a call without an answer counts as 0, whether or not somebody said so.
WITH
    words AS
    (
        SELECT
            inference_id,
            if(inference_id IS NULL, conversation_id, '') AS talk,
            argMax(assumeNotNull(number), (at, id)) AS value,
            max(at) AS said_at
        FROM ratchet.feedback_log
        WHERE task = {task:String} AND kind = {kind:String} AND number IS NOT NULL
          AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
        GROUP BY inference_id, talk
    ),
    on_talks AS
    (
        SELECT argMax(answers.id, (answers.at, answers.id)) AS call, any(words.value) AS value
        FROM
        (
            SELECT id, at, conversation_id
            FROM ratchet.inferences_log
            WHERE task = {task:String} AND status = 'ok' AND conversation_id != ''
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND conversation_id IN (SELECT talk FROM words WHERE inference_id IS NULL)
        ) AS answers
        INNER JOIN (SELECT talk, value, said_at FROM words WHERE inference_id IS NULL) AS words
            ON answers.conversation_id = words.talk
        WHERE answers.at <= words.said_at
        GROUP BY words.talk
    ),
    said AS
    (
        SELECT call, argMax(value, own) AS value, 1 AS given
        FROM
        (
            SELECT assumeNotNull(inference_id) AS call, value, 1 AS own FROM words WHERE inference_id IS NOT NULL
            UNION ALL
            SELECT call, value, 0 AS own FROM on_talks
        )
        GROUP BY call
    ),
    by_user AS
    (
        SELECT
            stage_and_arm,
            sticky,
            toFloat64(count()) AS n,
            sum(if(failed AND {failures_count:Bool}, 0., said.value)) AS y,
            sum(if(failed AND {failures_count:Bool}, 0., said.value * said.value)) AS y2
        FROM
        (
            SELECT
                id,
                toUInt32(2 * arrayFirstIndex(
                    (begin, end) -> at >= begin AND at < end,
                    {since:Array(DateTime64(6, 'UTC'))}, {until:Array(DateTime64(6, 'UTC'))}
                ) + (stage = 'canary')) AS stage_and_arm,
                sticky,
                status IN ('error', 'timeout') AS failed
            FROM ratchet.inferences_log FINAL
            WHERE task = {task:String} AND rollout_id = {rollout_id:UUID}
              AND stage IN ('stable', 'canary') AND status != 'cancelled'
              AND at >= arrayMin({since:Array(DateTime64(6, 'UTC'))})
              AND at < arrayMax({until:Array(DateTime64(6, 'UTC'))})
              AND (id IN (SELECT call FROM said) OR ({failures_count:Bool} AND status IN ('error', 'timeout')))
        ) AS calls
        LEFT JOIN said ON calls.id = said.call
        WHERE stage_and_arm > 1
        GROUP BY stage_and_arm, sticky
    )
SELECT
    intDiv(stage_and_arm, 2) AS stage_number,
    stage_and_arm % 2 AS candidate,
    count() AS users,
    sum(n) AS rows,
    sum(n) AS weights,
    sum(y) AS total,
    sum(y2) AS squares,
    sum(y * y) AS yy,
    sum(y * n) AS yn,
    sum(n * n) AS nn,
    0 AS abstained
FROM by_user
GROUP BY stage_and_arm
