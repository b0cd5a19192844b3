-- Which tasks have feedback that can make pairs?
SELECT DISTINCT task FROM ratchet.feedback_log WHERE kind IN ('correction', 'preference', 'thumb') ORDER BY task
