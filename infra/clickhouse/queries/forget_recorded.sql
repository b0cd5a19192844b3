-- Which requests to be forgotten are on record, and which events were each one's?
SELECT who, tenant, until, groupArrayIf((kind, event_id), kind != 'request') AS events
FROM ratchet.forgotten
WHERE {who:String} = '' OR who = {who:String}
GROUP BY who, tenant, until
ORDER BY until
