"""What pairwise judging says of candidates: wins, ties, losses and win rates per rollout; for people and for gates."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from ratchet.consumers.rules.win_rate import (
    Comparison,
    Controlled,
    Rate,
    Stratum,
    by_length,
    length_controlled,
    tally,
    win_rate,
)
from ratchet.infra.clickhouse.client import Store

_EVERY = "00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True)
class Compared:
    """One candidate of one rollout (or all preference pairs of a task) by one judge and rubric version.

    ``win_rate`` counts a tie as ½; ``length_controlled`` is what it would be at equal length, None without a
    comparison. ``expected`` is the mean of P(win) + ½·P(tie) over the ``with_probabilities`` comparisons that
    have probabilities. ``abstained`` were asked and not answered: they are in no rate. ``flagged`` hold
    instruction-like text. The last four count mirrored requests, judged or not: an answer that failed is not
    compared, so a win rate says nothing of failures.
    """

    rollout_id: str | None
    candidate: str
    judge: str
    rubric: str
    rubric_hash: str
    wins: int
    ties: int
    losses: int
    win_rate: Rate
    length_controlled: Controlled | None
    by_length: list[Stratum]
    expected: float | None
    with_probabilities: int
    abstained: int
    flagged: int
    mirrored: int = 0
    candidate_failed: int = 0
    production_failed: int = 0
    production_unknown: int = 0


def compare(store: Store, *, task: str = "", rollout_id: str = "", confidence: float = 0.95) -> list[Compared]:
    """Candidates beside production, per rollout, judge and rubric version.

    Args:
        store: ClickHouse.
        task: of one task; "" is every one.
        rollout_id: of one rollout; "" is every one.
        confidence: of the intervals, two-sided.

    Raises:
        StoreError: ClickHouse is away.
    """
    about = {"task": task, "rollout_id": rollout_id or _EVERY}
    mirrored = {
        (str(row["rollout_id"]), row["adapter"]): {
            name: int(row[name]) for name in ("mirrored", "candidate_failed", "production_failed", "production_unknown")
        }
        for row in store.query("pairwise_missing", **about)
    }
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in store.query("pairwise_compared", **about):
        groups[str(row["rollout_id"]), row["adapter"], row["judge"], row["rubric"], row["rubric_hash"]].append(row)
    return [_compared(key, rows, mirrored.get((key[0], key[1]), {}), confidence) for key, rows in groups.items()]


def pair_opinions(store: Store, task: str, confidence: float = 0.95) -> list[Compared]:
    """Second opinions on a task's preference pairs: a win is the judge's agreement with people's choice.

    Raises:
        StoreError: ClickHouse is away.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in store.query("pairwise_opinions", task=task):
        groups["", "chosen", row["judge"], row["rubric"], row["rubric_hash"]].append(row)
    return [_compared(key, rows, {}, confidence) for key, rows in groups.items()]


def _compared(key: tuple[str, ...], rows: list[dict[str, Any]], missing: dict[str, int], confidence: float) -> Compared:
    found = [
        Comparison(float(row["score"]), float(row["difference"]), float(row["weight"]), int(row["n"]))
        for row in rows
        if row["score"] is not None
    ]
    wins, ties, losses = tally(found)
    probable = sum(int(row["with_probabilities"]) for row in rows)
    expected = sum(float(row["expected_sum"]) for row in rows) / probable if probable else None
    return Compared(
        rollout_id=key[0] or None,
        candidate=key[1],
        judge=key[2],
        rubric=key[3],
        rubric_hash=key[4],
        wins=wins,
        ties=ties,
        losses=losses,
        win_rate=win_rate(found, confidence),
        length_controlled=length_controlled(found, confidence),
        by_length=by_length(found, confidence),
        expected=expected,
        with_probabilities=probable,
        abstained=sum(int(row["n"]) for row in rows if row["score"] is None),
        flagged=sum(int(row["flagged"]) for row in rows),
        **missing,
    )
