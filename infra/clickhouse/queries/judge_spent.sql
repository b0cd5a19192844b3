-- What did judges spend since an instant? (A score that is there twice was paid for once; judged_at is when.
-- LIMIT 1 BY instead of FINAL: the index on judged_at then prunes.)
SELECT judge, sum(tokens) AS tokens, ifNull(sum(cost_usd), 0) AS usd
FROM
(
    SELECT judge, prompt_tokens + completion_tokens AS tokens, cost_usd
    FROM ratchet.scores_log
    WHERE judged_at >= {since:DateTime64(6, 'UTC')}
    ORDER BY ingested_at DESC
    LIMIT 1 BY id
)
GROUP BY judge
ORDER BY judge
