-- Whose word, by which wording of the rubric, do a task's newest judged answers have? (prefix: '' or of panels and
-- cascades, whose members' own words are not the one that counts.)
SELECT judge, rubric_hash
FROM ratchet.scores
WHERE task = {task:String} AND kind = 'pointwise' AND rubric = {rubric:String} AND target IN ('inference', 'shadow')
  AND startsWith(judge, {prefix:String})
ORDER BY at DESC, id DESC
LIMIT 1
