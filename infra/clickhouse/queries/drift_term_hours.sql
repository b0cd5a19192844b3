-- In which share of an hour's texts stand the twenty terms that are commonest in a baseline? One row an hour and term.
WITH
    hours AS
    (
        SELECT hour, sum(hourly.texts) AS texts, sumMap(hourly.terms) AS terms
        FROM ratchet.hourly_terms AS hourly
        WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String}) AND side = {side:String}
          AND hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}
        GROUP BY hour
    ),
    common AS
    (
        SELECT arrayJoin(arraySlice(arraySort(term -> (-summed[term], term), mapKeys(summed)), 1, 20)) AS term
        FROM (SELECT sumMap(terms) AS summed FROM hours)
    )
SELECT term, hour, texts AS n, hours.terms[term] / texts AS share
FROM hours CROSS JOIN common
WHERE texts > 0
ORDER BY term, hour
