-- Is this one feedback event stored yet? (Its time finds it by the sorting key.)
SELECT count() AS n
FROM ratchet.feedback_log
WHERE task = {task:String} AND at = {at:DateTime64(6, 'UTC')} AND id = {id:UUID}
