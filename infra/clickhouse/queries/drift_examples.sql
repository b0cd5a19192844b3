-- Which calls of an adapter show a move best? Ids, the clearest first: the far end of what moved, among those that the
-- metric is about. `kind` is that of the scores or feedback that the metric is made of ('': none), `words` are such as one
-- of which the text has (none: any text).
SELECT toString(calls.id) AS id
FROM ratchet.inferences_log AS calls FINAL
LEFT JOIN
(
    SELECT target_id AS about, min(score) AS lowest, max(score) AS highest
    FROM ratchet.scores
    WHERE task = {task:String} AND kind = {kind:String} AND ({rubric:String} = '' OR rubric = {rubric:String})
      AND score IS NOT NULL AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    GROUP BY target_id
    UNION ALL
    SELECT assumeNotNull(inference_id) AS about, min(number) AS lowest, max(number) AS highest
    FROM ratchet.feedback
    WHERE task = {task:String} AND kind = {kind:String} AND inference_id IS NOT NULL AND number IS NOT NULL
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
      AND if({risen:Bool}, number > 0.5, number <= 0.5)
    GROUP BY inference_id
) AS said ON said.about = calls.id
WHERE task = {task:String} AND adapter = {adapter:String}
  AND at >= {calls_since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
  AND ({kind:String} = '' OR said.about = calls.id)
  AND (empty({statuses:Array(String)}) OR status IN {statuses:Array(String)})
  AND (
      empty({words:Array(String)})
      OR multiSearchAnyCaseInsensitiveUTF8(
          replaceAll(if({side:String} = 'input', prompt, content), '’', ''''), {words:Array(String)}
      )
  )
ORDER BY
    if({risen:Bool}, -1., 1.) * multiIf(
        {kind:String} != '', toFloat64(ifNull(if({risen:Bool}, said.highest, said.lowest), 0)),
        {metric:String} = 'answer_length', toFloat64(characters),
        {metric:String} = 'prompt_length', toFloat64(prompt_characters),
        {metric:String} = 'latency', latency_ms,
        {metric:String} = 'cost', toFloat64(ifNull(cost_usd, 0)),
        0.
    ),
    at DESC,
    id
LIMIT 5
