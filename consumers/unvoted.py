"""Pairs that nobody voted for, out of ClickHouse: answers asked for again, graded ones, and judged shadow answers.

Unlike votes they are not told by an event each: every now and then `Pairs.find` asks for what came in since.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, Literal

from ratchet.consumers.calibration import in_force
from ratchet.consumers.evidence import Evidence, state_of
from ratchet.consumers.rules.found_pairs import Found, Graded, Opinion, Row, graded_pairs, judged_pairs, row_of
from ratchet.consumers.rules.votes import Answer, split_of
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.pairing_policy import PairingPolicy, PairSource
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import instant

SOURCES: tuple[PairSource, ...] = ("rating", "outcome", "regeneration", "shadow")


def trusted_judges(store: Store, task: str, policy: TaskPolicy, now: datetime) -> frozenset[str]:
    """The judges whose word people's labels bear out now.

    Raises:
        StoreError: ClickHouse is away.
    """
    if policy.pairing.judged != "trusted" or not policy.judge.enabled:
        return frozenset()
    judge = in_force(store, task, policy, now)
    return frozenset((judge.judge,)) if judge.standing.trusted else frozenset()


def find(store: Store, task: str, policy: PairingPolicy, since: datetime, trusted: frozenset[str]) -> list[Row]:
    """The rows of a task's pairs that nobody voted for.

    Args:
        store: ClickHouse.
        task: the task.
        policy: which of them are wanted.
        since: what was stored before is known already.
        trusted: the judges that may say which answer is better, where the policy asks for trust.

    Returns:
        As `pairing.derive`. A pair that is none any more, because its grade changed, is a dropped row, ``withdrawn``.

    Raises:
        StoreError: ClickHouse is away.
    """
    evidence = Evidence(store, task)
    found: list[Found] = []
    answers: dict[str, Answer] = {}
    for more, known in (
        _graded(store, evidence, "rating", policy, since),
        _graded(store, evidence, "outcome", policy, since),
        _regenerated(store, evidence, policy, since),
        _judged(store, evidence, policy, since, trusted),
    ):
        found += more
        answers |= known
    if not found:
        return []
    stood = evidence.states(SOURCES)
    # a good answer may have been the worse one once; where it never was there is nothing to withdraw
    kept = [one for one in found if one.reason != "withdrawn" or one.pair_id in stood]
    return [_later(row_of(one, answers, policy), stood.get(one.pair_id)) for one in kept]


def _later(row: Row, stood: tuple[Any, ...] | None) -> Row:
    """The row under the version that it stands with or, where it says something else now, under the next one."""
    if stood is None:
        return row
    version = int(stood[-1])
    return row | {"version": version if state_of(row)[:-1] == stood[:-1] else version + 1}


def _graded(
    store: Store, evidence: Evidence, source: Literal["rating", "outcome"], policy: PairingPolicy, since: datetime
) -> tuple[list[Found], dict[str, Answer]]:
    rating = source == "rating"
    if not (policy.ratings if rating else policy.outcomes):
        return [], {}
    good, bad = (policy.good_rating, policy.bad_rating) if rating else (1.0, 0.0)
    rows = store.query("pairs_graded", task=evidence.task, kind=source, good=good, bad=bad, since=instant(since))
    answers = evidence.answers({str(row["id"]) for row in rows})
    groups: dict[tuple[str, str], list[Graded]] = defaultdict(list)
    for row in rows:
        answer = answers.get(str(row["id"]))
        if answer is not None:
            one = Graded(answer.id, bool(row["good"]), int(row["at_us"]), str(row["event_id"]), row["user"])
            groups[answer.prompt_hash, split_of(answer, policy.holdout, policy.since_us)].append(one)
    return [pair for graded in groups.values() for pair in graded_pairs(source, graded)], answers


def _regenerated(
    store: Store, evidence: Evidence, policy: PairingPolicy, since: datetime
) -> tuple[list[Found], dict[str, Answer]]:
    if not policy.regenerations:
        return [], {}
    rows = store.query(
        "pairs_regenerated", task=evidence.task, window_s=policy.regeneration_window_s, since=instant(since)
    )
    found = []
    for row in rows:
        chosen, rejected = str(row["chosen"]), str(row["rejected"])
        found.append(Found("regeneration", chosen, rejected, int(row["at_us"]), (chosen, rejected), user=row["user"]))
    return found, evidence.answers({name for one in found for name in (one.chosen, one.rejected)})


def _judged(
    store: Store, evidence: Evidence, policy: PairingPolicy, since: datetime, trusted: frozenset[str]
) -> tuple[list[Found], dict[str, Answer]]:
    if policy.judged == "off":
        return [], {}
    opinions = [
        Opinion(
            shadow=str(row["shadow"]),
            served=str(row["served"]),
            score_id=str(row["score_id"]),
            judge=row["judge"],
            score=float(row["score"]),
            sure=row["sure"],
            at_us=int(row["at_us"]),
            user=row["user"],
        )
        for row in store.query("pairs_judged", task=evidence.task, since=instant(since))
    ]
    found = judged_pairs(opinions, trusted if policy.judged == "trusted" else None, policy)
    named = {name for one in found for name in (one.chosen, one.rejected)}
    return found, evidence.answers(named) | evidence.shadow_answers(named)
