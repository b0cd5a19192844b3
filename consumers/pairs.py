"""Group ``pairs``: each piece of feedback re-derives the whole group it belongs to, as rows of pairs_log.

Evidence comes from ClickHouse. The handler takes feedback and `flush`, called every second or so,
derives all groups it touches at once, once their evidence is stored: of two votes that came
together, whichever was stored later then sees both, and its row has the higher version. What
that misses (an inference stored long after its feedback, feedback taken by a process that was
killed) `catch_up` asks ClickHouse for, again and again. A `sweep` derives everything: at the start,
and for imports, which come in thousands.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from ratchet.consumers.evidence import Evidence, state_of, to_vote
from ratchet.consumers.rules.pairing import Row, derive
from ratchet.consumers.rules.votes import KINDS, Answer, Vote, over_cap, time_cut
from ratchet.consumers.unvoted import SOURCES, find, trusted_judges
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.events import Event, Feedback
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.topics import FEEDBACK

if TYPE_CHECKING:
    from faststream.confluent import KafkaBroker

log = logging.getLogger("ratchet.pairs")
GROUP = "pairs"
EVER = datetime(1970, 1, 2, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PATIENCE_S = 10.0
"""How long feedback waits for its evidence: many of ingest's flushes."""
MOST_WAITING = 5_000
"""More feedback than this at once is left to a sweep, so memory stays bounded."""

After = Callable[[str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class PairCounts:
    """What a derivation gave: ``written`` rows had changed; ``dropped`` counts by reason.

    ``policy`` is the one that decided, with the instant of a split by time.
    """

    built: int
    dropped: dict[str, int] = field(default_factory=dict)
    written: int = 0
    policy: PairingPolicy = field(default_factory=PairingPolicy)


def derive_groups(evidence: Evidence, seeds: Sequence[Vote], policy: PairingPolicy) -> list[Row]:
    """Derive the whole groups that ``seeds`` belong to, and those that they push over a user's cap."""
    rows, cast_votes = _groups(evidence, seeds, seeds, policy)
    capped = over_cap(cast_votes, policy.max_pairs_per_user)
    # a vote that came late but is early can displace another target, whose row must say so
    admitted = {vote.user for vote in seeds if (vote.user, vote.target) not in capped}
    displaced = [vote for vote in cast_votes if vote.user in admitted and (vote.user, vote.target) in capped]
    if displaced:
        rows += _groups(evidence, displaced, seeds, policy)[0]
    return list({row["pair_id"]: row for row in rows}.values())


def _groups(
    evidence: Evidence, members: Sequence[Vote], unstored: Sequence[Vote], policy: PairingPolicy
) -> tuple[list[Row], list[Vote]]:
    """Rows of the members' groups, and every vote of the users who voted in them."""
    targets = {vote.target for vote in members}
    ids = {i for vote in members for i in (vote.inference_id, vote.compared_with) if i}
    thumbed = {vote.inference_id for vote in members if vote.kind == "thumb" and vote.inference_id}
    answers = evidence.answers(ids)
    siblings = evidence.thumbed_answers({answers[i].prompt_hash for i in thumbed if i in answers})
    answers |= siblings
    thumbed |= siblings.keys()
    # displaced votes were read without their text, so the store's own copy comes last and wins
    found = {vote.id: vote for vote in [*unstored, *evidence.votes_touching(ids | thumbed)]}
    for vote in members:
        found.setdefault(vote.id, vote)
    votes = [
        vote
        for vote in found.values()
        if vote.target in targets or (vote.kind == "thumb" and vote.inference_id in thumbed)
    ]
    users = {vote.user for vote in votes if vote.user}
    cast_votes = [*evidence.votes_of(users), *votes, *unstored]
    return derive(votes, answers, over_cap(cast_votes, policy.max_pairs_per_user), policy), cast_votes


def derive_all(store: Store, task: str, policy: PairingPolicy, trusted: frozenset[str] = frozenset()) -> PairCounts:
    """Derive every pair of a task at once and write the rows that changed; same rows as event by event.

    Args:
        store: ClickHouse.
        task: the task.
        policy: how its pairs are made.
        trusted: see `unvoted.find`.

    Raises:
        StoreError: ClickHouse is away.
    """
    evidence = Evidence(store, task)
    votes = evidence.all_votes()
    answers = evidence.voted_answers()
    policy = _dated(policy, answers.values())
    rows = derive(votes, answers, over_cap(votes, policy.max_pairs_per_user), policy)
    rows += find(store, task, policy, EVER, trusted)
    changed = _write_changed(evidence, rows)
    dropped = Counter(str(row["reason"]) for row in rows if row["status"] == "dropped")
    built = sum(row["status"] == "built" for row in rows)
    return PairCounts(built, dict(sorted(dropped.items())), changed, policy)


def _dated(policy: PairingPolicy, answers: Iterable[Answer]) -> PairingPolicy:
    """The policy with the instant of its split by time, where that depends on what there is."""
    if policy.holdout_by != "time" or policy.holdout_since is not None:
        return policy
    cut = time_cut(answers, policy.holdout)
    return policy.model_copy(update={"holdout_since": None if cut is None else _EPOCH + timedelta(microseconds=cut)})


def _write_changed(evidence: Evidence, rows: Sequence[Row], sources: Sequence[str] = ()) -> int:
    """Write the rows that say something else than those that stand; returns how many."""
    known = evidence.states(sources) if rows else {}
    changed = [row for row in rows if known.get(row["pair_id"]) != state_of(row)]
    evidence.write(changed)
    return len(changed)


class Pairs:
    """The handler and its flush: waits for evidence, derives, writes, then calls ``after`` (the retraining trigger).

    ``stale`` holds the tasks that want a `sweep`: all of them at the start, later those with imports
    or with more feedback at once than is kept here.
    """

    def __init__(
        self,
        store: Store,
        tasks: Mapping[str, TaskPolicy],
        after: After | None = None,
        patience_s: float = PATIENCE_S,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        """Take the parts; tasks without a policy make no pairs."""
        self._store = store
        self._tasks = tasks
        self._after = after
        self._patience_s = patience_s
        self._monotonic = monotonic
        self._now = now
        self._waiting: dict[str, list[tuple[Feedback, float]]] = defaultdict(list)
        self.stale: set[str] = set(tasks)

    async def handle(self, event: Event) -> None:
        """Take one feedback event for the next `flush`."""
        if not isinstance(event, Feedback) or event.kind not in KINDS or event.task not in self._tasks:
            return
        waiting = self._waiting[event.task]
        if event.source == "import" or len(waiting) >= MOST_WAITING:
            self.stale.add(event.task)
            return
        waiting.append((event, self._monotonic() + self._patience_s))

    async def flush(self, last: bool = False) -> None:
        """Derive the groups of all feedback whose evidence is stored; ``last`` waits for no evidence.

        Raises:
            StoreError: ClickHouse is away; the feedback keeps waiting.
        """
        for task in [task for task, waiting in self._waiting.items() if waiting]:
            taken = list(self._waiting[task])
            ready, late = await asyncio.to_thread(self._ready, task, taken, last)
            if ready or late:
                await asyncio.to_thread(self._derive, task, [to_vote(event) for event in (*ready, *late)])
            done = {event.id for event in (*ready, *late)}
            self._waiting[task] = [item for item in self._waiting[task] if item[0].id not in done]
            if done and self._after is not None:
                await self._after(task)

    def _ready(
        self, task: str, taken: Sequence[tuple[Feedback, float]], last: bool
    ) -> tuple[list[Feedback], list[Feedback]]:
        """Of the waiting feedback, that whose evidence is stored, and that which waited long enough."""
        evidence = Evidence(self._store, task)
        stored = evidence.stored([event for event, _ in taken])
        named = {i for event, _ in taken for i in (event.inference_id, event.compared_with) if i}
        known = evidence.answers(named).keys()
        ready, late = [], []
        for event, until in taken:
            if event.id in stored and {i for i in (event.inference_id, event.compared_with) if i} <= known:
                ready.append(event)
            elif last or self._monotonic() >= until:
                late.append(event)
        return ready, late

    def _derive(self, task: str, votes: Sequence[Vote]) -> None:
        evidence = Evidence(self._store, task)
        evidence.write(derive_groups(evidence, votes, self._tasks[task].pairing))

    async def catch_up(self, task: str, since: datetime) -> int:
        """Derive the groups of stored feedback that `flush` missed; returns how many votes that were.

        Args:
            task: a task with a policy.
            since: when the earliest of the votes was cast, so that not all of history is looked through.

        Raises:
            StoreError: ClickHouse is away; the next call finds them again.
        """
        evidence = Evidence(self._store, task)
        left = await asyncio.to_thread(evidence.votes_left, since, self._patience_s, MOST_WAITING)
        if len(left) == MOST_WAITING:
            self.stale.add(task)
        elif left:
            await asyncio.to_thread(self._derive, task, left)
            if self._after is not None:
                await self._after(task)
        return len(left)

    async def find(self, task: str, since: datetime) -> int:
        """Make the pairs that nobody voted for, of what was stored since; returns how many rows changed.

        Raises:
            StoreError: ClickHouse is away; the next call finds them again.
        """

        def work() -> int:
            policy = self._tasks[task]
            rows = find(self._store, task, policy.pairing, since, self._trusted(task))
            return _write_changed(Evidence(self._store, task), rows, SOURCES)

        changed = await asyncio.to_thread(work)
        if changed and self._after is not None:
            await self._after(task)
        return changed

    def _trusted(self, task: str) -> frozenset[str]:
        return trusted_judges(self._store, task, self._tasks[task], self._now())

    async def sweep(self, task: str) -> PairCounts:
        """Derive everything again and write what changed.

        Raises:
            StoreError: ClickHouse is away; the task stays stale.
        """
        self.stale.discard(task)
        try:
            counts = await asyncio.to_thread(
                lambda: derive_all(self._store, task, self._tasks[task].pairing, self._trusted(task))
            )
        except Exception:
            self.stale.add(task)
            raise
        if counts.written and self._after is not None:
            await self._after(task)
        return counts


def register(broker: KafkaBroker, pairs: Pairs, publisher: Publisher) -> None:
    """Subscribe the pair builder to feedback; ``publisher`` takes dead letters and what ``after`` publishes."""
    from ratchet.infra.kafka.stream import subscribe

    subscribe(broker, FEEDBACK, GROUP, pairs.handle, publisher)
