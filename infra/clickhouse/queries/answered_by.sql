-- Which adapters gave these answers of a task?
SELECT toString(id) AS answer, adapter FROM ratchet.inferences WHERE task = {task:String} AND id IN {ids:Array(UUID)}
