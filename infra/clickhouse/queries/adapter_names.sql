-- Every adapter name that a task ever used: numbers are never given twice.
SELECT name FROM ratchet.adapters WHERE task = {task:String}
