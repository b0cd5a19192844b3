-- A bounded sample of answers and prompts: the first of each of so many equal slices of a time. The table's order makes
-- that cheap: texts are read only where a slice begins.
SELECT answer, asked AS prompt
FROM
(
    SELECT
        id,
        at,
        if(status = 'ok', substringUTF8(content, 1, 2000), '') AS answer,
        substringUTF8(prompt, 1, 2000) AS asked,
        toUnixTimestamp64Micro(at) - toUnixTimestamp64Micro({since:DateTime64(6, 'UTC')}) AS into
    FROM ratchet.inferences_log
    WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
      AND into % {slice_us:UInt64} < {read_us:UInt64}
    LIMIT 1 BY id
)
ORDER BY at, id
LIMIT {most:UInt32} BY intDiv(into, {slice_us:UInt64})
