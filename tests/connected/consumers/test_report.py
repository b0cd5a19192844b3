"""Drift's report on a real ClickHouse: what it counts, what it finds moved, and when it says nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from reported import BASELINE, START, V1, V2, WINDOW, call, named, traffic
from scipy import stats

from ratchet.consumers.report import HOUR_METRICS, hours, measure
from ratchet.consumers.rules.bins import bin_of
from ratchet.consumers.rules.measurement import Window
from ratchet.consumers.rules.phrases import REFUSALS, UNCERTAIN, refusal_phrase, uncertain_phrase
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.rollup import roll
from ratchet.schemas.checks import RegexCheck
from ratchet.schemas.policies import TaskPolicy

TOPICS = ("the parcel never arrived at the courier depot", "please refund the invoice to my bank card")


@pytest.fixture(scope="module")
def store(clickhouse: str) -> Iterator[Store]:
    """A migrated store."""
    with connect(clickhouse) as opened:
        migrate(opened)
        yield opened


@pytest.fixture
def task() -> str:
    """A task of the test's own."""
    return f"t-{uuid.uuid4().hex[:12]}"


def test_it_finds_what_moved_and_says_by_how_much(store: Store, task: str) -> None:
    """Longer answers, refusals, other words and topics, slower and dearer: each with its figure, live and rolled up."""
    rng = np.random.default_rng(5)
    before_lengths, now_lengths = rng.integers(40, 400, 1200), rng.integers(80, 500, 1200)

    def before(number: int) -> dict[str, Any]:
        text = TOPICS[number % 10 == 0]
        return {
            "content": text.ljust(before_lengths[number], "."),
            "prompt": text,
            "latency_ms": 100.0 + number % 50,
            "status": "ok" if number % 100 else "error",
        }

    def now(number: int) -> dict[str, Any]:
        text = "I’m  unable to help, " * (number % 4 == 0) + TOPICS[number % 2]
        return {
            "content": text.ljust(now_lengths[number], "."),
            "prompt": text,
            "latency_ms": 150.0 + number % 50,
            "cost_usd": 0.002,
            "status": "ok" if number % 20 else "timeout",
        }

    rows = traffic(task, BASELINE, 200, before) + traffic(task, WINDOW, 400, now)
    for _ in range(2):
        store.insert_rows("ratchet.inferences_log", rows)
    live = measure(store, task, "", BASELINE, WINDOW)
    roll(store, 0, 0)
    assert measure(store, task, V1, BASELINE, WINDOW) == live, "the rollup says what the rows said"
    found = named(live)

    kept = [[len(row["content"]) for row in some if row["status"] == "ok"] for some in (rows[:1200], rows[1200:])]
    length = found["answer_length"]
    assert (length.n_baseline, length.n) == (len(kept[0]), len(kept[1])), "each event once; errors are no answers"
    assert (length.baseline, length.value) == pytest.approx((np.mean(kept[0]), np.mean(kept[1])))
    assert length.distances["ks"] == pytest.approx(stats.ks_2samp(*kept).statistic, abs=0.02)
    assert length.distances["wasserstein"] == pytest.approx(stats.wasserstein_distance(*kept), rel=0.02)
    assert length.effect == length.distances["psi"] > 0.2
    assert length.p_value is not None
    assert length.p_value < 1e-6
    assert length.top[0].label.endswith("characters")

    exact = named(measure(store, task, "", BASELINE, WINDOW, exact=True))["answer_length"].distances
    assert exact["ks"] == pytest.approx(stats.ks_2samp(*kept).statistic, abs=1e-9)
    assert exact["wasserstein"] == pytest.approx(stats.wasserstein_distance(*kept), abs=1e-9)
    assert exact["wasserstein_sd"] == pytest.approx(stats.wasserstein_distance(*kept) / np.std(kept[0]), abs=1e-9)

    refusals = found["refusals"]
    assert (refusals.baseline, refusals.value) == (0.0, sum(i % 4 == 0 and i % 20 != 0 for i in range(1200)) / 1140)
    assert refusals.p_value == pytest.approx(
        stats.chi2_contingency([[0, 1188], [240, 900]], correction=False).pvalue, abs=1e-6
    )
    assert (found["errors"].baseline, found["errors"].value) == (0.01, 0.05)
    assert found["latency"].effect == pytest.approx(50 / 124.5, rel=0.01)
    assert found["cost"].effect == pytest.approx(1.0)
    assert found["uncertainty"].effect == 0.0
    assert found["uncertainty"].p_value == 1.0, "one class only is no difference"
    for side in ("answer", "prompt"):
        terms = found[f"{side}_terms"]
        assert terms.effect is not None
        assert terms.effect > 0.1
        assert {"refund", "bank", "card", "invoice", "my", "please"} & {moved.label for moved in terms.top}
        assert terms.p_value is not None
        assert terms.p_value < 1e-3
    assert "scores" not in found
    for metric in ("judge_score", "satisfaction", "completion"):
        assert found[metric].abstains == "no observations in the baseline"
    if found["answer_topics"].abstains is None:
        assert found["prompt_topics"].effect is not None
        assert found["prompt_topics"].effect > 0.1
    else:
        assert "wordllama" in found["answer_topics"].abstains


def test_no_drift_moves_little(store: Store, task: str) -> None:
    """The same traffic in both windows has small effects, and no p that says otherwise."""
    lengths = np.random.default_rng(7).integers(40, 400, 2400)

    def same(number: int) -> dict[str, Any]:
        length = int(lengths[number])
        return {"content": TOPICS[length % 2].ljust(length, "."), "latency_ms": float(length)}

    store.insert_rows("ratchet.inferences_log", traffic(task, BASELINE, 200, same))
    store.insert_rows("ratchet.inferences_log", traffic(task, WINDOW, 400, lambda number: same(1200 + number)))
    found = named(measure(store, task, "", BASELINE, WINDOW))
    for metric in ("answer_length", "prompt_length", "latency", "cost", "answer_terms", "prompt_terms", "refusals"):
        one = found[metric]
        assert one.effect is not None
        assert abs(one.effect) < 0.1
        assert one.p_value is not None
        assert one.p_value > 0.001
    assert found["prompt_length"].p_value == 1.0, "one value only is no difference"


def test_the_phrases_in_sql_are_the_phrases(store: Store, task: str) -> None:
    """Every phrase is counted as Python finds it, whatever its case and spaces; far down it is no refusal."""
    texts = [f"Well. {phrase.upper()} that" for phrase in (*REFUSALS, *UNCERTAIN)]
    texts += [text.replace("'", "’").replace(" ", " \n ") for text in texts]
    texts += ["x" * 290 + " i cannot help", "x" * 280 + " i cannot help", "sure", "", "ÄÖ " * 90 + "i can't help"]
    window = Window(BASELINE.since, BASELINE.since + timedelta(hours=1))
    store.insert_rows("ratchet.inferences_log", traffic(task, window, len(texts), lambda at: {"content": texts[at]}))
    (refused,) = hours(store, task, "", "refusals", window.since, window.until)
    (unsure,) = hours(store, task, "", "uncertainty", window.since, window.until)
    assert refused.n == unsure.n == len(texts)
    assert refused.mean * refused.n == pytest.approx(sum(refusal_phrase(text) is not None for text in texts))
    assert unsure.mean * unsure.n == pytest.approx(sum(uncertain_phrase(text) is not None for text in texts))


def test_prompts_and_bins_are_read_as_the_rules_say(store: Store, task: str) -> None:
    """The last user message, its text parts, or the bare prompt; each length in the bin that the formula gives."""
    requests = {
        '{"messages":[{"role":"user","content":"old"},{"role":"assistant"},{"role":"user","content":"é!"}]}': 2,
        '{"messages":[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}]}': 7,
        '{"prompt":"bare prompt"}': 11,
        '{"prompt":["first of several","b"]}': 16,
        '{"messages":[{"role":"system","content":"nobody asked"}]}': 0,
    }
    rows = [call(task, START, at, request=request) for at, request in enumerate(requests)]
    sizes = [63, 64, 65, 66, 1000, 4095, 4096, 100_000]
    rows += [call(task, START, 100 + at, content="x" * size) for at, size in enumerate(sizes)]
    store.insert_rows("ratchet.inferences_log", rows)
    roll(store, 0, 0)
    (row,) = store.query_sql(
        "SELECT answer_bins, prompt_bins FROM ratchet.hourly WHERE task = {task:String}", {"task": task}
    )
    asked = sorted([*requests.values(), *[len("where is my order?")] * len(sizes)])
    assert sorted(value for value, n in row["prompt_bins"].items() for _ in range(n)) == asked
    assert row["answer_bins"] == {bin_of(4): len(requests)} | {
        bin_of(size): [bin_of(other) for other in sizes].count(bin_of(size)) for size in sizes
    }


def test_a_late_event_amends_its_hour(store: Store, task: str) -> None:
    """An event that comes after its hour was rolled up is in the next report, once, however often it is delivered."""
    store.insert_rows("ratchet.inferences_log", traffic(task, WINDOW, 20, lambda _: {}))
    roll(store, 0, 0)
    before = hours(store, task, "", "answer_length", WINDOW.since, WINDOW.until)
    late = call(task, WINDOW.since + timedelta(minutes=7), 1, content="a much longer answer")
    for _ in range(2):
        store.insert_rows("ratchet.inferences_log", [late])
        after = hours(store, task, "", "answer_length", WINDOW.since, WINDOW.until)
        assert [hour.n for hour in before] == [20, 20, 20]
        assert [hour.n for hour in after] == [21, 20, 20]
        assert after[0].mean == pytest.approx((20 * 4 + 20) / 21)
        roll(store, 0, 0)


def test_scores_are_weighted_and_judges_apart(store: Store, task: str) -> None:
    """The mean is by inverse probability with an effective n; another judge's scores are another metric and abstain."""

    def score(hour: int, number: int, value: float, probability: float, **fields: Any) -> dict[str, Any]:
        at = START + timedelta(hours=hour, seconds=number)
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}{hour}{number}{fields}")),
            "at": at.isoformat(),
            "task": task,
            "adapter": V1,
            "target": "inference",
            "kind": "pointwise",
            "judge": "j1",
            "rubric": "helpful.v1",
            "rubric_hash": "aaaabbbbcccc",
            "score": value,
            "inclusion_probability": probability,
        } | fields

    rows = []
    for hour in range(9):
        worse = 0.2 if hour >= 6 else 0.0
        rows += [score(hour, number, 0.8 - worse + 0.1 * (number % 2), 0.1) for number in range(40)]
        rows += [score(hour, 100 + number, 0.0, 1.0) for number in range(10)]
        rows += [score(hour, 200 + number, 1.0, 1.0, kind="check", rubric="ticket") for number in range(50)]
    rows += [score(8, 300 + number, 0.9, 0.1, judge="j2") for number in range(35)]
    store.insert_rows("ratchet.scores_log", rows)
    policy = TaskPolicy(completion="ticket", checks=[RegexCheck(name="ticket", pattern="x")])
    found = named(measure(store, task, V1, BASELINE, WINDOW, policy=policy))
    weights = np.array([10.0] * 40 + [1.0] * 10)
    values = np.array([0.8, 0.9] * 20 + [0.0] * 10)
    mean = np.average(values, weights=weights)
    one = found["judge_score"]
    assert one.baseline == pytest.approx(mean)
    assert one.value == pytest.approx(mean - 0.2 * 400 / 410)
    assert one.n_baseline == int(6 * weights.sum() ** 2 / (weights**2).sum())
    assert one.effect == pytest.approx(one.value / one.baseline - 1)
    other = found["judge_score:j2:helpful.v1#aaaabbbb"]
    assert other.abstains is not None
    assert "scored none of the baseline" in other.abstains
    assert (found["completion"].n_baseline, found["completion"].value, found["completion"].p_value) == (300, 1.0, 1.0)
    by_hour = hours(store, task, V1, "judge_score", START, WINDOW.until)
    assert len(by_hour) == 9, "the hours of one judge"
    assert by_hour[0].mean == pytest.approx(mean)
    assert by_hour[0].variance == pytest.approx(np.average((values - mean) ** 2, weights=weights))
    assert by_hour[0].n == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert [hour.n for hour in hours(store, task, "", "completion", START, WINDOW.until, policy=policy)] == [50.0] * 9


@pytest.mark.parametrize("rolled", [False, True])
def test_completion_by_a_graded_check_is_the_share_that_passes(store: Store, task: str, rolled: bool) -> None:
    """As the rollout's gate counts it, not the mean grade; live and rolled up, in windows and hour by hour."""
    rows = [
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}{hour}{number}")), "task": task, "adapter": "base",
            "at": (START + timedelta(hours=hour, seconds=number)).isoformat(), "target": "inference", "kind": "check",
            "target_id": str(uuid.uuid4()), "judge": "check", "rubric": "near", "rubric_hash": "0" * 16,
            # all grades are high; before, half of them are below the check's threshold
            "score": 0.9 if number % 2 or hour >= 6 else 0.8, "inclusion_probability": 1.0,
            "verdict": "pass" if number % 2 or hour >= 6 else "fail",
        }
        for hour in range(9)
        for number in range(40)
    ]  # fmt: skip
    store.insert_rows("ratchet.scores_log", rows)
    if rolled:
        assert roll(store, 0, 0) > 0
    policy = TaskPolicy(completion="near", checks=[RegexCheck(name="near", pattern="x")])
    found = named(measure(store, task, "", BASELINE, WINDOW, policy=policy))["completion"]
    assert (found.n_baseline, found.baseline, found.n, found.value) == (240, 0.5, 120, 1.0)
    assert (found.effect, found.test) == (0.5, "z")
    by_hour = hours(store, task, "", "completion", START, WINDOW.until, policy=policy)
    assert [(hour.n, hour.mean) for hour in by_hour] == [(40.0, 0.5)] * 6 + [(40.0, 1.0)] * 3
    assert by_hour[0].variance == 0.25


def test_satisfaction_is_of_the_adapter_that_answered(store: Store, task: str) -> None:
    """A thumb counts for the adapter of the inference it names; one that names none counts for the task alone."""
    calls = [call(task, START, number, adapter=(V1, V2)[number % 2]) for number in range(80)]
    store.insert_rows("ratchet.inferences_log", calls)

    def thumb(hour: int, number: int, about: str | None) -> dict[str, Any]:
        at = START + timedelta(hours=hour, seconds=number)
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}{hour}{number}"))
        up = float(hour < 6 or number % 4 == 0)
        return {"id": key, "at": at.isoformat(), "task": task, "kind": "thumb", "inference_id": about, "number": up}

    rows = [thumb(hour, number, calls[number]["id"]) for hour in (1, 7) for number in range(80)]
    rows += [thumb(2, 100 + number, None) for number in range(5)]
    for _ in range(2):
        store.insert_rows("ratchet.feedback_log", rows)
        for adapter, n, value in ((V1, 40, 0.5), (V2, 40, 0.0), ("", 80, 0.25)):
            (first, *_, last) = hours(store, task, adapter, "satisfaction", START, WINDOW.until)
            assert (first.n, first.mean, last.n, last.mean) == (n, 1.0, n, value)
        roll(store, 0, 0)
    for adapter, n_before, n, value in ((V1, 40, 40, 0.5), ("", 85, 80, 0.25)):
        one = named(measure(store, task, adapter, BASELINE, WINDOW))["satisfaction"]
        assert (one.n_baseline, one.n, one.baseline, one.value) == (n_before, n, 1.0, value)


def test_what_cannot_be_said_abstains(store: Store, task: str) -> None:
    """Empty windows, too few, no price, a number that is none: every metric is there and says why it says nothing."""
    expected = named(measure(store, task, "", BASELINE, WINDOW))
    assert all(one.abstains for one in expected.values())
    assert hours(store, task, "", "latency", BASELINE.since, WINDOW.until) == []
    store.insert_rows("ratchet.inferences_log", traffic(task, BASELINE, 50, lambda _: {"cost_usd": None}))
    found = named(measure(store, task, "", BASELINE, WINDOW))
    assert found["answer_length"].abstains == "no observations in the window"
    store.insert_rows("ratchet.inferences_log", traffic(task, WINDOW, 100, lambda _: {}))
    found = named(measure(store, task, "", BASELINE, WINDOW))
    assert found.keys() == expected.keys()
    for metric in ("answer_length", "prompt_length", "answer_terms", "prompt_terms"):
        assert "below 500 observations a side: 300 and 300" in str(found[metric].abstains)
        assert found[metric].effect is None
    assert found["cost"].abstains == "no observations in the baseline"
    assert found["latency"].abstains is None
    bad = call(task, WINDOW.since, 999)
    store.command(
        "INSERT INTO ratchet.inferences_log (id, at, task, status, latency_ms) "
        f"SELECT toUUID('{bad['id']}'), toDateTime64('2026-11-02 06:00:01', 6, 'UTC'), '{task}', 'ok', nan"
    )
    found = named(measure(store, task, "", BASELINE, WINDOW))
    assert found["latency"].abstains == "an observation is not a number"
    assert len(hours(store, task, "", "latency", BASELINE.since, WINDOW.until)) == 8, "its hour is left out"
    assert found["answer_length"].n == 301


@pytest.mark.parametrize(
    ("baseline", "window", "said"),
    [
        (BASELINE, Window(START + timedelta(hours=5), START + timedelta(hours=8)), "hours in common"),
        (BASELINE, Window(WINDOW.until, WINDOW.since), "since < until"),
        (BASELINE, Window(WINDOW.since.replace(tzinfo=None), WINDOW.until), "with a time zone"),
    ],
)
def test_windows_that_cannot_be_compared_are_refused(store: Store, baseline: Window, window: Window, said: str) -> None:
    """One sentence that names the instants and what is allowed."""
    with pytest.raises(ValueError, match=said):
        measure(store, "t", "", baseline, window)


def test_an_unknown_metric_is_refused(store: Store) -> None:
    """The message lists those that there are."""
    with pytest.raises(ValueError, match=f"'speed'; allowed: {HOUR_METRICS[0]}"):
        hours(store, "t", "", "speed", BASELINE.since, BASELINE.until)
