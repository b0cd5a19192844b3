"""Topics of a baseline on a real ClickHouse: measured, kept, and what they need."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from reported import BASELINE, WINDOW, named, traffic

from ratchet.consumers import topics
from ratchet.consumers.report import measure
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.rows import instant


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


SUBJECTS = ("the parcel is at customs", "your refund is on its way", "please restart the router", "this bill is wrong")
SPAN = {"since": instant(BASELINE.since), "until": instant(BASELINE.until)}


def test_kept_topics_outlive_the_rows_of_their_baseline(store: Store, task: str) -> None:
    """A pinned baseline's rows expire: the same centroids, words and counts go on; another model's are not used."""
    pytest.importorskip("wordllama")

    def about(number: int) -> dict[str, Any]:
        return {"content": f"{SUBJECTS[number * 7 % 4]} number {number % 13}"}

    def later(number: int) -> dict[str, Any]:
        return {"content": f"{SUBJECTS[number % 2]} number {number % 13}"}

    store.insert_rows("inferences_log", traffic(task, BASELINE, 300, about) + traffic(task, WINDOW, 400, later))
    before = named(measure(store, task, "", BASELINE, WINDOW, pinned=True))["answer_topics"]
    assert before.abstains is None
    assert before.effect is not None
    assert before.effect > 0.3
    store.command(f"DELETE FROM ratchet.inferences_log WHERE task = '{task}' AND at < '2026-11-02 06:00:00'")
    asked = {"task": task, "adapter": "", "slice_us": 1, "read_us": 1, "most": 5}
    assert store.query("drift_texts", **asked, **SPAN) == []
    after = named(measure(store, task, "", BASELINE, WINDOW))["answer_topics"]
    assert (after.effect, after.p_value, after.top) == (before.effect, before.p_value, before.top)
    assert (after.n_baseline, after.n) == (before.n_baseline, before.n)
    rows = store.query("drift_topics", task=task, adapter="", **SPAN)
    (kept,) = [row for row in rows if row["metric"] == "answer_topics"]
    assert sum(kept["counts"]) == before.n_baseline
    other = f"{task}-x"
    old = {"task": other, "adapter": "", "model": "wordllama 0.1"}
    old |= {"baseline_since": SPAN["since"], "baseline_until": SPAN["until"]}
    store.insert_rows("topics_log", [kept | old])
    store.insert_rows("inferences_log", traffic(other, WINDOW, 400, later))
    assert named(measure(store, other, "", BASELINE, WINDOW))["answer_topics"].abstains == (
        "no observations in the baseline"
    )


def test_topics_that_nobody_pinned_are_not_kept(store: Store, task: str) -> None:
    """A report over any two windows leaves nothing behind."""
    store.insert_rows("inferences_log", traffic(task, BASELINE, 300, lambda n: {"content": SUBJECTS[n % 4]}))
    measure(store, task, "", BASELINE, WINDOW)
    assert store.query("drift_topics", task=task, adapter="", **SPAN) == []


def test_topics_say_what_they_need(store: Store, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra both topic metrics abstain in one sentence that says what to install."""
    monkeypatch.setattr(topics, "embedding_model", lambda: None)
    found = named(measure(store, task, "", BASELINE, WINDOW))
    for metric in ("answer_topics", "prompt_topics"):
        assert found[metric].abstains == "topics need the package wordllama: pip install 'ratchet[topics]'"
