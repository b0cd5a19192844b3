-- What was spent since an instant, by task and by who answered: adapters on users' requests, candidates on copies of
-- them, judges on answers? ('' means every task.) known counts the calls whose cost is known, of the judge's those
-- whose tokens are: its price is the settings' to know.
SELECT
    task,
    use,
    name,
    count() AS n,
    sum(prompt) AS prompt_tokens,
    sum(completion) AS completion_tokens,
    if(use = 'judge', countIf(prompt + completion > 0), count(cost)) AS known,
    sum(cost) AS cost_usd
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
    SELECT task, 'judge' AS use, judge AS name, NULL AS cost, prompt_tokens AS prompt, completion_tokens AS completion
    FROM ratchet.scores
    WHERE kind != 'check' AND at >= {since:DateTime64(6, 'UTC')} AND ({task:String} = '' OR task = {task:String})
    UNION ALL
    SELECT task, 'judge' AS use, judge AS name, NULL AS cost, prompt_tokens AS prompt, completion_tokens AS completion
    FROM ratchet.anchor_scores
    WHERE at >= {since:DateTime64(6, 'UTC')} AND ({task:String} = '' OR task = {task:String})
)
GROUP BY task, use, name
ORDER BY task, indexOf(['production', 'shadow', 'judge'], use), name
