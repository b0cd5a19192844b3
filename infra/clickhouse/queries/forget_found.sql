-- Which events hold a user's data: the user's own up to an instant, what stands in the same conversations without a
-- user, the copies of those requests, and every word of anybody on their answers. ('' means every tenant.)
WITH
    mine AS
    (
        SELECT id, task, tenant, conversation_id FROM ratchet.inferences_log
        WHERE user != '' AND lower(hex(SHA256(user))) = {who:String} AND at <= {until:DateTime64(6, 'UTC')}
          AND ({tenant:String} = '' OR tenant = {tenant:String})
    ),
    asked AS
    (
        SELECT id, task FROM mine
        UNION ALL
        SELECT id, task FROM ratchet.inferences_log
        WHERE user = '' AND conversation_id != '' AND at <= {until:DateTime64(6, 'UTC')}
          AND (task, tenant, conversation_id) IN (SELECT task, tenant, conversation_id FROM mine)
    )
SELECT DISTINCT 'inferences' AS kind, id, task FROM asked
UNION ALL
SELECT DISTINCT 'shadows' AS kind, id, task FROM ratchet.shadows_log
WHERE inference_id IN (SELECT id FROM asked)
   OR
   (
       user != '' AND lower(hex(SHA256(user))) = {who:String} AND at <= {until:DateTime64(6, 'UTC')}
       AND ({tenant:String} = '' OR tenant = {tenant:String})
   )
UNION ALL
SELECT DISTINCT 'feedback' AS kind, id, task FROM ratchet.feedback_log
WHERE inference_id IN (SELECT id FROM asked)
   OR compared_with IN (SELECT id FROM asked)
   OR
   (
       at <= {until:DateTime64(6, 'UTC')} AND ({tenant:String} = '' OR tenant = {tenant:String})
       AND
       (
           (user != '' AND lower(hex(SHA256(user))) = {who:String})
           OR
           (
               user = '' AND inference_id IS NULL AND conversation_id != ''
               AND (task, tenant, conversation_id) IN (SELECT task, tenant, conversation_id FROM mine)
           )
       )
   )
