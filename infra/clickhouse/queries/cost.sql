-- What was spent since an instant, by task and by who answered: adapters on users' requests, candidates on copies of
-- them, judges on answers? ('' means every task.) known counts the calls whose cost is known; of a judge's from before
-- costs were stored with scores the tokens are counted apart, for the settings' price. What several judges or criteria
-- said together cost nothing more and is no call.
SELECT
    task,
    use,
    name,
    count() AS n,
    sum(prompt) AS prompt_tokens,
    sum(completion) AS completion_tokens,
    count(cost) AS known,
    sum(cost) AS cost_usd,
    countIf(cost IS NULL AND prompt + completion > 0) AS unpriced,
    sumIf(prompt, cost IS NULL) AS unpriced_prompt_tokens,
    sumIf(completion, cost IS NULL) AS unpriced_completion_tokens
FROM
(
    SELECT task, 'production' AS use, adapter AS name, cost_usd AS cost, prompt_tokens AS prompt, completion_tokens AS completion
    FROM ratchet.inferences
    WHERE at >= {since:DateTime64(6, 'UTC')} AND ({task:String} = '' OR task = {task:String})
    UNION ALL
    SELECT task, 'shadow' AS use, adapter AS name, cost_usd AS cost, prompt_tokens AS prompt, completion_tokens AS completion
    FROM ratchet.shadows
    WHERE at >= {since:DateTime64(6, 'UTC')} AND ({task:String} = '' OR task = {task:String})
    UNION ALL
    SELECT task, 'judge' AS use, judge AS name, cost_usd AS cost, prompt_tokens AS prompt, completion_tokens AS completion
    FROM ratchet.scores
    WHERE kind IN ('pointwise', 'pairwise') AND basis != 'combined' AND at >= {since:DateTime64(6, 'UTC')} AND ({task:String} = '' OR task = {task:String})
)
GROUP BY task, use, name
ORDER BY task, indexOf(['production', 'shadow', 'judge'], use), name
