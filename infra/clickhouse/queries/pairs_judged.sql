-- Which shadow answers does a judge call better or worse than production's, both orders taken together, of those judged
-- since? (The word has no order in its rubric; without probabilities a judge is not sure.)
WITH
    said AS
    (
        SELECT id, target_id, judge, score, distribution, toUnixTimestamp64Micro(at) AS at_us
        FROM ratchet.scores_log
        WHERE task = {task:String} AND kind = 'pairwise' AND target = 'shadow' AND position(rubric, '/') = 0
          AND score IN (0, 1) AND verdict IN ('win', 'loss') AND ingested_at >= {since:DateTime64(3, 'UTC')}
          AND at >= {since:DateTime64(3, 'UTC')} - INTERVAL 1 DAY
        ORDER BY ingested_at DESC
        LIMIT 1 BY id
    ),
    shadows AS
    (
        SELECT id, inference_id, user FROM ratchet.shadows_log
        WHERE task = {task:String} AND id IN (SELECT target_id FROM said)
        LIMIT 1 BY id
    )
SELECT
    said.target_id AS shadow,
    shadows.inference_id AS served,
    said.id AS score_id,
    judge,
    score,
    if(empty(distribution), NULL, distribution[if(score = 1, 'win', 'loss')]) AS sure,
    at_us,
    user
FROM said INNER JOIN shadows ON said.target_id = shadows.id
ORDER BY shadow, score_id
