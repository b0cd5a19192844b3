"""Which inferences show a move: what an engineer reads first when an alert comes."""

from __future__ import annotations

from datetime import timedelta

from ratchet.consumers.rules.phrases import REFUSALS, UNCERTAIN
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.monitoring_events import Drift
from ratchet.schemas.rows import instant

FEEDBACK_AFTER = timedelta(days=7)
"""Feedback counts in the hour in which it was given; its answer is looked for so far back."""
_STATUSES = {
    "answer_length": ["ok"],
    "answer_terms": ["ok"],
    "answer_topics": ["ok"],
    "refusals": ["ok"],
    "uncertainty": ["ok"],
    "latency": ["ok", "timeout"],
    "errors": ["error", "timeout"],
}
"""The calls that a metric is about, where those are not all."""


def examples(store: Store, said: Drift, completion: str = "outcome") -> list[str]:
    """Give at most five ids of inferences that show what a drift event says, the clearest first.

    The lowest scored (or highest, where the metric has risen), the thumbs down, the refusing, the longest, slowest and
    dearest; of terms those that have one which has become commoner; of topics the newest.

    Args:
        store: migrated.
        said: metric, adapter, window and direction.
        completion: the task's policy: ``outcome`` or a check's name.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    metric = said.metric.partition(":")[0]
    checked = metric == "completion" and completion != "outcome"
    kind = {"judge_score": "pointwise", "satisfaction": "thumb", "completion": "check" if checked else "outcome"}
    feedback = metric in ("satisfaction", "completion") and not checked
    risen = (said.value or 0.0) >= (said.baseline or 0.0)
    rows = store.query(
        "drift_examples",
        task=said.task,
        adapter=said.adapter,
        metric=metric,
        side=said.side,
        kind=kind.get(metric, ""),
        rubric=completion if checked else "",
        statuses=_STATUSES.get(metric, []),
        words=_words(metric, said) if risen else [],
        risen=risen,
        since=instant(said.since),
        calls_since=instant(said.since - FEEDBACK_AFTER if feedback else said.since),
        until=instant(said.at),
    )
    return [str(row["id"]) for row in rows]


def _words(metric: str, said: Drift) -> list[str]:
    if metric == "refusals":
        return list(REFUSALS)
    if metric == "uncertainty":
        return list(UNCERTAIN)
    if metric.endswith("_terms"):
        return [one.label for one in said.top if one.now > one.before]
    return []
