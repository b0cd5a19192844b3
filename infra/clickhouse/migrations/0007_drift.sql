-- What drift reads: finer bins, phrases, terms, and whose answers users spoke of (docs/decisions/020).
--
-- Bins: bin(v) of a whole number v (characters, milliseconds, billionths of a USD) is v itself below 64, and above
-- it one of 32 equal parts of each power of two, so that a bin is at most 1/32 of its value wide. The formula is in
-- consumers/rules/bins.py, too; a test holds the two together.

-- What was asked, as text: the last thing that a user said, or the bare prompt. Computed when it is read.
ALTER TABLE ratchet.inferences_log
    ADD COLUMN IF NOT EXISTS prompt String ALIAS multiIf(
        JSONType(request, 'prompt') = 'String', JSONExtractString(request, 'prompt'),
        JSONType(request, 'prompt') = 'Array', JSONExtractString(request, 'prompt', 1),
        arrayStringConcat(
            arrayMap(
                said -> if(
                    JSONType(said, 'content') = 'Array',
                    arrayStringConcat(arrayMap(part -> JSONExtractString(part, 'text'), JSONExtractArrayRaw(said, 'content')), ' '),
                    JSONExtractString(said, 'content')
                ),
                arraySlice(
                    arrayFilter(one -> JSONExtractString(one, 'role') = 'user', JSONExtractArrayRaw(request, 'messages')), -1
                )
            )
        )
    ),
    ADD COLUMN IF NOT EXISTS prompt_characters UInt32 MATERIALIZED lengthUTF8(prompt) CODEC(ZSTD);

-- Answers are calls that ended well; a prompt counts whatever became of it. A latency is that of an answer or a timeout.
ALTER TABLE ratchet.hourly_log
    ADD COLUMN IF NOT EXISTS answers UInt64 AFTER length_bins,
    ADD COLUMN IF NOT EXISTS answer_characters UInt64 AFTER answers,
    ADD COLUMN IF NOT EXISTS answer_squares Float64 AFTER answer_characters,
    ADD COLUMN IF NOT EXISTS answer_bins Map(UInt16, UInt64) AFTER answer_squares,
    ADD COLUMN IF NOT EXISTS refusals UInt64 AFTER answer_bins,
    ADD COLUMN IF NOT EXISTS uncertain UInt64 AFTER refusals,
    ADD COLUMN IF NOT EXISTS prompts UInt64 AFTER uncertain,
    ADD COLUMN IF NOT EXISTS prompt_characters UInt64 AFTER prompts,
    ADD COLUMN IF NOT EXISTS prompt_squares Float64 AFTER prompt_characters,
    ADD COLUMN IF NOT EXISTS prompt_bins Map(UInt16, UInt64) AFTER prompt_squares,
    ADD COLUMN IF NOT EXISTS timed UInt64 AFTER prompt_bins,
    ADD COLUMN IF NOT EXISTS latency_total Float64 AFTER timed,
    ADD COLUMN IF NOT EXISTS latency_squares Float64 AFTER latency_total,
    ADD COLUMN IF NOT EXISTS latency_bins Map(UInt16, UInt64) AFTER latency_squares,
    ADD COLUMN IF NOT EXISTS priced UInt64 AFTER latency_bins,
    ADD COLUMN IF NOT EXISTS cost_squares Float64 AFTER priced,
    ADD COLUMN IF NOT EXISTS cost_bins Map(UInt16, UInt64) AFTER cost_squares;

CREATE OR REPLACE VIEW ratchet.hourly_now AS
WITH
    (v -> toUInt16(if(v < 64, v, 32 * (toUInt8(log2(v)) - 6) + bitShiftRight(toUInt64(v), toUInt8(log2(v)) - 5) + 32))) AS bin,
    (said -> replaceRegexpAll(replaceAll(said, '’', ''''), '[\\s\\x{00A0}]+', ' ')) AS plain
SELECT
    task,
    adapter,
    stage,
    toStartOfHour(at) AS hour,
    count() AS n,
    countIf(status = 'error' OR status = 'timeout') AS errors,
    countIf(status = 'timeout') AS timeouts,
    countIf(status = 'cancelled') AS cancelled,
    quantilesTDigestState(0.5, 0.95, 0.99)(latency_ms) AS latency,
    sum(prompt_tokens) AS prompt_tokens,
    sum(completion_tokens) AS completion_tokens,
    sum(cost_usd) AS cost_usd,
    sum(toUInt64(event.characters)) AS characters,
    sum(toUInt64(event.characters) * event.characters) AS characters_squares,
    sumMap(map(toUInt8(ceil(log2(event.characters + 1))), toUInt64(1))) AS length_bins,
    countIf(status = 'ok') AS answers,
    sumIf(toUInt64(event.characters), status = 'ok') AS answer_characters,
    sumIf(toFloat64(event.characters) * event.characters, status = 'ok') AS answer_squares,
    sumMapIf(map(bin(event.characters), toUInt64(1)), status = 'ok') AS answer_bins,
    -- phrases.REFUSALS near the start and phrases.UNCERTAIN anywhere, as refusal_phrase() and uncertain_phrase() find them
    countIf(
        status = 'ok' AND multiSearchAnyCaseInsensitive(
            substringUTF8(plain(substringUTF8(event.content, 1, 1200)), 1, 300),
            [
                'i can''t assist', 'i cannot assist', 'i can''t help', 'i cannot help', 'i''m unable to',
                'i am unable to', 'i''m not able to', 'i am not able to', 'i can''t provide', 'i cannot provide',
                'i can''t comply', 'i cannot comply', 'i''m sorry, but i can', 'i won''t be able to',
                'as an ai language model', 'as an ai, i', 'against my guidelines'
            ]
        )
    ) AS refusals,
    countIf(
        status = 'ok' AND multiSearchAnyCaseInsensitive(
            plain(event.content),
            [
                'i''m not sure', 'i am not sure', 'i''m not certain', 'i am not certain', 'i''m unsure',
                'i am unsure', 'i don''t know', 'i do not know', 'i''m not aware of', 'i am not aware of',
                'i''m not familiar with', 'i am not familiar with', 'i don''t have information',
                'i do not have information', 'i don''t have enough information', 'i do not have enough information',
                'i don''t have any information', 'i do not have any information', 'i don''t have access to',
                'i do not have access to', 'i can''t be certain', 'i cannot be certain', 'i can''t be sure',
                'i cannot be sure', 'i can''t say for certain', 'i cannot say for certain', 'i can''t determine',
                'i cannot determine', 'i could be wrong', 'i may be wrong', 'i might be wrong',
                'to the best of my knowledge', 'as far as i know', 'as of my last update',
                'as of my knowledge cutoff', 'without more information', 'without more context',
                'it is unclear whether', 'it''s unclear whether', 'it is hard to say', 'it''s hard to say'
            ]
        )
    ) AS uncertain,
    count() AS prompts,
    sum(toUInt64(event.prompt_characters)) AS prompt_characters,
    sum(toFloat64(event.prompt_characters) * event.prompt_characters) AS prompt_squares,
    sumMap(map(bin(event.prompt_characters), toUInt64(1))) AS prompt_bins,
    countIf(status IN ('ok', 'timeout')) AS timed,
    sumIf(latency_ms, status IN ('ok', 'timeout')) AS latency_total,
    sumIf(latency_ms * latency_ms, status IN ('ok', 'timeout')) AS latency_squares,
    sumMapIf(
        map(bin(toUInt64(least(greatest(latency_ms, 0), 1e12))), toUInt64(1)), status IN ('ok', 'timeout')
    ) AS latency_bins,
    count(event.cost_usd) AS priced,
    ifNull(sum(event.cost_usd * event.cost_usd), 0) AS cost_squares,
    sumMapIf(
        map(bin(toUInt64(least(greatest(ifNull(event.cost_usd, 0), 0), 1e3) * 1e9)), toUInt64(1)),
        event.cost_usd IS NOT NULL
    ) AS cost_bins
FROM ratchet.inferences_log AS event FINAL
WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'inferences')
GROUP BY task, adapter, stage, hour;

-- The same texts as in 0003, whose stars stood for fewer columns.
CREATE OR REPLACE VIEW ratchet.hourly_states AS
SELECT * EXCEPT (hour_n, upto, said)
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_log FINAL
        UNION ALL
        SELECT *, sum(n) OVER (PARTITION BY task, hour) AS hour_n, toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_now
    )
)
WHERE (hour_n, upto) = said;

CREATE OR REPLACE VIEW ratchet.hourly AS
SELECT
    task,
    adapter,
    stage,
    hour,
    n,
    errors,
    finalizeAggregation(latency)[1] AS latency_p50_ms,
    finalizeAggregation(latency)[2] AS latency_p95_ms,
    prompt_tokens,
    completion_tokens,
    cost_usd,
    timeouts,
    cancelled,
    finalizeAggregation(latency)[3] AS latency_p99_ms,
    characters,
    characters_squares,
    length_bins,
    answers,
    answer_characters,
    answer_squares,
    answer_bins,
    refusals,
    uncertain,
    prompts,
    prompt_characters,
    prompt_squares,
    prompt_bins,
    timed,
    latency_total,
    latency_squares,
    latency_bins,
    priced,
    cost_squares,
    cost_bins
FROM ratchet.hourly_states;

-- In how many of an hour's texts each of its 300 commonest terms stands: words of 2 to 40 letters, of the first 2000.
CREATE TABLE IF NOT EXISTS ratchet.hourly_terms_log
(
    task LowCardinality(String),
    adapter LowCardinality(String),
    side LowCardinality(String),
    hour DateTime('UTC') CODEC(Delta, ZSTD),
    texts UInt64,
    terms Map(String, UInt64) CODEC(ZSTD(3)),
    hour_n UInt64,
    upto DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(hour_n)
PARTITION BY toYear(hour)
ORDER BY (task, hour, side, adapter);

-- Every text has the term '' as well: that counts the texts.
CREATE VIEW IF NOT EXISTS ratchet.hourly_terms_now AS
WITH
    (
        said -> arrayPushFront(
            arrayDistinct(
                arrayFilter(
                    word -> lengthUTF8(word) BETWEEN 2 AND 40 AND NOT match(word, '^[0-9]+$'),
                    tokens(lowerUTF8(substringUTF8(said, 1, 2000)))
                )
            ),
            ''
        )
    ) AS words
SELECT
    task,
    adapter,
    side,
    hour,
    sumIf(texts_with, term = '') AS texts,
    mapFromArrays(groupArrayIf(term, term != ''), groupArrayIf(texts_with, term != '')) AS terms
FROM
(
    SELECT task, adapter, side, hour, term, count() AS texts_with
    FROM
    (
        SELECT
            task,
            adapter,
            toStartOfHour(at) AS hour,
            arrayJoin(if(status = 'ok', [('output', content), ('input', prompt)], [('input', prompt)])) AS text,
            text.1 AS side,
            arrayJoin(words(text.2)) AS term
        FROM ratchet.inferences_log FINAL
        WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'inferences')
    )
    GROUP BY task, adapter, side, hour, term
    ORDER BY texts_with DESC, term
    LIMIT 301 BY task, adapter, side, hour
)
GROUP BY task, adapter, side, hour;

CREATE VIEW IF NOT EXISTS ratchet.hourly_terms AS
SELECT * EXCEPT (hour_n, upto, said)
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_terms_log FINAL
        UNION ALL
        SELECT
            *,
            sum(texts) OVER (PARTITION BY task, hour) AS hour_n,
            toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_terms_now
    )
)
WHERE (hour_n, upto) = said;

-- Whose answers people spoke of: sums by the adapter of the inference that a feedback names; '' where it names none that
-- is known.
ALTER TABLE ratchet.hourly_feedback_log
    ADD COLUMN IF NOT EXISTS adapter_numbers Map(String, UInt64) AFTER squares,
    ADD COLUMN IF NOT EXISTS adapter_totals Map(String, Float64) AFTER adapter_numbers,
    ADD COLUMN IF NOT EXISTS adapter_squares Map(String, Float64) AFTER adapter_totals;

CREATE OR REPLACE VIEW ratchet.hourly_feedback_now AS
WITH
    given AS
    (
        SELECT task, kind, toStartOfHour(at) AS hour, number, ifNull(inference_id, toUUIDOrZero('')) AS about
        FROM ratchet.feedback_log FINAL
        WHERE (task, toStartOfHour(at)) GLOBAL IN (SELECT task, hour FROM ratchet.hours_open WHERE source = 'feedback')
    ),
    answered AS
    (
        SELECT task, id, any(toString(adapter)) AS by
        FROM ratchet.inferences_log
        WHERE (task, id) GLOBAL IN (SELECT task, about FROM given)
        GROUP BY task, id
    )
SELECT
    given.task AS task,
    kind,
    hour,
    count() AS n,
    count(number) AS numbers,
    countIf(number > 0.5) AS positive,
    ifNull(sum(number), 0) AS total,
    ifNull(sum(number * number), 0) AS squares,
    sumMapIf(map(by, toUInt64(1)), number IS NOT NULL) AS adapter_numbers,
    sumMapIf(map(by, ifNull(number, 0)), number IS NOT NULL) AS adapter_totals,
    sumMapIf(map(by, ifNull(number * number, 0)), number IS NOT NULL) AS adapter_squares
FROM given GLOBAL LEFT JOIN answered ON given.task = answered.task AND given.about = answered.id
GROUP BY task, kind, hour;

CREATE OR REPLACE VIEW ratchet.hourly_feedback AS
SELECT * EXCEPT (hour_n, upto, said)
FROM
(
    SELECT *, max((hour_n, upto)) OVER (PARTITION BY task, hour) AS said
    FROM
    (
        SELECT * FROM ratchet.hourly_feedback_log FINAL
        UNION ALL
        SELECT *, sum(n) OVER (PARTITION BY task, hour) AS hour_n, toDateTime64('2200-01-01 00:00:00', 6, 'UTC') AS upto
        FROM ratchet.hourly_feedback_now
    )
)
WHERE (hour_n, upto) = said;

-- Every hour is rolled up anew, so that it has the new columns; those whose rows expired keep what they had.
INSERT INTO ratchet.hours_log (source, task, hour, noted_at)
SELECT source, task, hour, now64(6) FROM ratchet.hours_log WHERE source != 'scores' GROUP BY source, task, hour;
