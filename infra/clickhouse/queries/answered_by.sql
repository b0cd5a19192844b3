-- Which adapters gave these answers of a task?
SELECT toString(id) AS id, adapter FROM ratchet.inferences WHERE task = {task:String} AND id IN {ids:Array(UUID)}
