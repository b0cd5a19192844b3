-- Which mirrored requests cannot be compared, by rollout and candidate? (answers that failed on either side)
SELECT
    shadows.rollout_id AS rollout_id,
    shadows.adapter AS adapter,
    count() AS mirrored,
    countIf(shadows.status != 'ok') AS candidate_failed,
    countIf(served.status != 'ok' AND served.status != '') AS production_failed,
    countIf(served.status = '') AS production_unknown
FROM ratchet.shadows AS shadows
LEFT JOIN
(
    SELECT id, status FROM ratchet.inferences
    WHERE ({task:String} = '' OR task = {task:String})
      AND id IN
      (
          SELECT inference_id FROM ratchet.shadows
          WHERE ({task:String} = '' OR task = {task:String})
            AND ({rollout_id:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR rollout_id = {rollout_id:UUID})
      )
) AS served ON shadows.inference_id = served.id
WHERE ({task:String} = '' OR shadows.task = {task:String})
  AND ({rollout_id:UUID} = toUUID('00000000-0000-0000-0000-000000000000') OR shadows.rollout_id = {rollout_id:UUID})
GROUP BY rollout_id, adapter
ORDER BY rollout_id, adapter
