-- How many answers (or prompts) have exactly so many characters, in a baseline and in a window? Counted from the rows.
SELECT
    value,
    countIf(NOT now) AS before,
    countIf(now) AS now_with
FROM
(
    SELECT
        if({side:String} = 'output', characters, prompt_characters) AS value,
        at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')} AS now
    FROM ratchet.inferences_log FINAL
    WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
      AND ({side:String} = 'input' OR status = 'ok')
      AND ((at >= {base_since:DateTime64(6, 'UTC')} AND at < {base_until:DateTime64(6, 'UTC')})
        OR (at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}))
)
GROUP BY value
ORDER BY value
