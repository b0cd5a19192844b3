-- Which answers of an adapter show a move best? The far end of what moved; ids, the clearest first.
SELECT toString(calls.id) AS id
FROM ratchet.inferences_log AS calls FINAL
LEFT JOIN
(
    SELECT target_id, min(score) AS worst
    FROM ratchet.scores
    WHERE task = {task:String} AND kind = 'pointwise' AND score IS NOT NULL
      AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
    GROUP BY target_id
) AS judged ON judged.target_id = calls.id
WHERE task = {task:String} AND adapter = {adapter:String}
  AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}
  AND (
      ({metric:String} = 'judge_score' AND judged.target_id = calls.id)
      OR ({metric:String} IN ('refusals', 'uncertainty') AND multiSearchAnyCaseInsensitive(content, {phrases:Array(String)}))
      OR ({metric:String} = 'errors' AND status IN ('error', 'timeout'))
      OR {metric:String} NOT IN ('judge_score', 'refusals', 'uncertainty', 'errors')
  )
ORDER BY
    multiIf(
        {metric:String} = 'judge_score', toFloat64(ifNull(judged.worst, 1)),
        {metric:String} = 'answer_length', if({risen:Bool}, -1., 1.) * characters,
        {metric:String} = 'prompt_length', if({risen:Bool}, -1., 1.) * prompt_characters,
        {metric:String} = 'latency', if({risen:Bool}, -1., 1.) * latency_ms,
        {metric:String} = 'cost', if({risen:Bool}, -1., 1.) * toFloat64(ifNull(cost_usd, 0)),
        0.
    ),
    at DESC
LIMIT 5
