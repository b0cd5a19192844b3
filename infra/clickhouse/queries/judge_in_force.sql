-- Whose word, by which wording of the rubric, do a task's newest judged answers (or comparisons: kind 'pairwise') have?
-- (prefix: '' or of panels and cascades, whose members' own words are not the one that counts. No FINAL: a redelivered
-- score says the same, and the newest one is found at the end of the sorting key.)
SELECT judge, rubric_hash
FROM ratchet.scores_log
WHERE task = {task:String} AND kind = {kind:String} AND rubric = {rubric:String} AND target IN ('inference', 'shadow')
  AND startsWith(judge, {prefix:String})
ORDER BY at DESC, id DESC
LIMIT 1
