-- In how many texts stand the terms that are common in a baseline or in a window? The hundred commonest of each; texts
-- is how many there are of them. A term counts in the hours of which it is one of the 300 commonest.
WITH
    sides AS
    (
        SELECT
            side,
            hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')} AS now,
            sum(hourly.texts) AS texts,
            sumMap(hourly.terms) AS terms
        FROM ratchet.hourly_terms AS hourly
        WHERE task = {task:String} AND ({adapter:String} = '' OR adapter = {adapter:String})
          AND ((hour >= {base_since:DateTime64(6, 'UTC')} AND hour < {base_until:DateTime64(6, 'UTC')})
            OR (hour >= {since:DateTime64(6, 'UTC')} AND hour < {until:DateTime64(6, 'UTC')}))
        GROUP BY side, now
    ),
    common AS
    (
        SELECT side, arrayJoin(arraySlice(arraySort(term -> (-terms[term], term), mapKeys(terms)), 1, 100)) AS term
        FROM sides
        GROUP BY side, term
    )
SELECT
    side,
    term,
    sumIf(sides.terms[term], NOT now) AS before,
    sumIf(sides.terms[term], now) AS now_with,
    sumIf(sides.texts, NOT now) AS texts_before,
    sumIf(sides.texts, now) AS texts_now
FROM common INNER JOIN sides ON common.side = sides.side
GROUP BY side, term
ORDER BY side, term
