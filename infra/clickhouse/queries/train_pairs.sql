-- How many pairs could a task train on, counting those whose last vote came by {until}?
SELECT count() AS n
FROM ratchet.pairs
WHERE task = {task:String} AND status = 'built' AND split = 'train' AND at <= {until:DateTime64(6, 'UTC')}
