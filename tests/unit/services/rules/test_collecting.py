"""Garbage collection beside the rollout's own rules: whatever happens, nothing that can be served or undone to goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import new_id
from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import BASE
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.rules.rollouts import transitions as rules
from ratchet.services.rules.rollouts.waiting import number, queue
from ratchet.trainers.adapters.collecting import tombstone
from ratchet.trainers.rules.collecting import judge

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
POLICY = RolloutPolicy()
STEPS = (
    "train", "train_bad", "next", "start_old", "release", "advance", "full", "abort", "pause", "resume", "undo",
    "gc", "gc",
)  # fmt: skip


def adapter(number: int, at: datetime = START, **more: Any) -> Adapter:
    """A registered adapter."""
    body = {
        "id": new_id(), "at": at, "task": "support", "name": f"support@v{number}-{number:08x}", "label": "l",
        "status": "registered", "method": "dpo", "base_model": "m", "path": "/p", "weights_sha256": f"{number:08x}" * 8,
        "dataset": "d", "dataset_sha256": "0" * 64, "job_id": new_id(),
    }  # fmt: skip
    return Adapter.model_validate(body | more)


class World:
    """A task with its registry, its routing table, and the adapters whose files are still there."""

    def __init__(self, keep: int) -> None:
        self.keep, self.now = keep, START
        self.adapters: dict[str, Adapter] = {}
        self.files: set[str] = set()
        self.tables: list[Rollout] = []

    @property
    def state(self) -> Rollout | None:
        """The table in force."""
        return self.tables[-1] if self.tables else None

    def do(self, step: str, which: int) -> None:
        """One thing that may happen; what the rules refuse does not."""
        self.now += timedelta(minutes=1)
        if step == "release":  # what makes histories of several promotions likely
            for part in ("abort", "train", "next", "full"):
                self.do(part, which)
            return
        try:
            table = self._step(step, which)
        except RolloutError:
            return
        if table is not None:
            self.tables.append(table)

    def _step(self, step: str, which: int) -> Rollout | None:
        state, now, known = self.state, self.now, self.adapters
        if step in ("train", "train_bad"):
            status = "registered" if step == "train" else "rejected"
            made = adapter(len(known) + 1, now, status=status)
            known[made.name] = made
            self.files.add(made.name)
        elif step == "gc":
            self.collect()
        elif step in ("next", "start_old"):
            ready = [one for one in known.values() if one.status == "registered"]
            one = next(iter(queue("support", known.values(), state)), None) if step == "next" else None
            if step == "start_old" and ready:
                one = ready[which % len(ready)]
            return rules.begin("support", one.name, POLICY, state, now, new_id(), new_id()) if one else None
        elif state is not None:
            match step:
                case "advance" | "full":
                    return rules.promote(state, POLICY, now, new_id(), "ada", "", step == "full")
                case "abort" | "pause" | "undo":
                    return getattr(rules, step)(state, now, new_id(), "ada", "")  # type: ignore[no-any-return]
                case "resume":
                    return rules.resume(state, POLICY, now, new_id(), "ada", "")
        return None

    def collect(self, tables: list[Rollout] | None = None) -> None:
        """Collect garbage as `ratchet adapters gc` does."""
        stable = [table.stable for table in reversed(self.tables) if table.action in ("promote", "undo")]
        found = tables if tables is not None else self.tables[-1:]
        for one in judge(self.adapters.values(), found, [], {"support": stable}, (), self.keep):
            if not one.keep:
                self.adapters[one.name] = tombstone(self.adapters[one.name], one.reason, self.now)
                self.files.discard(one.name)


def named(state: Rollout) -> set[str]:
    """The adapters that a table serves, or serves at the next flip."""
    names = {state.stable, state.previous, state.candidate if state.status in rules.UNDER_WAY else None}
    return {name for name in names if name and name != BASE}


def reachable(state: Rollout, depth: int = 4) -> set[str]:
    """Every adapter that people can bring before users from here without training anything."""
    found = named(state)
    if depth:
        world = World(0)
        for step in ("abort", "undo", "full", "advance", "pause", "resume"):
            world.tables = [state]
            world.do(step, 0)
            if world.tables[-1] is not state:
                found |= reachable(world.tables[-1], depth - 1)
    return found


@given(
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=40),
    keep=st.integers(0, 3),
)
def test_nothing_that_can_be_rolled_back_to_is_removed(steps: list[tuple[str, int]], keep: int) -> None:
    """After any trainings, rollouts, aborts, undos and collections, whatever undo can reach still has its files."""
    world = World(keep)
    for step, which in steps:
        waiting = next(iter(queue("support", world.adapters.values(), world.state)), None)
        world.do(step, which)
        if world.state is not None:
            assert reachable(world.state) <= world.files
        assert waiting is None or waiting.name in world.files
        assert {one.name for one in world.adapters.values() if one.status == "registered"} <= world.files
    stable = [table.stable for table in reversed(world.tables) if table.action in ("promote", "undo")]
    assert set(list(dict.fromkeys(stable))[:keep]) - {BASE} <= world.files


@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9)), max_size=40), behind=st.integers(0, 5))
def test_a_source_that_is_behind_keeps_too_many(steps: list[tuple[str, int]], behind: int) -> None:
    """With an older table of the task beside the one in force nothing more is removed than without it."""
    world = World(0)
    for step, which in steps:
        if step != "gc":
            world.do(step, which)
    alone, both = World(0), World(0)
    for other in (alone, both):
        other.adapters, other.files, other.tables = dict(world.adapters), set(world.files), world.tables
    alone.collect()
    both.collect([*world.tables[-1 - behind :][:1], *world.tables[-1:]])
    assert alone.files <= both.files


def test_each_adapter_has_its_reason() -> None:
    """Stable, previous, asked for, kept by number, needed by a pool, waiting; and what goes with why."""
    known = [adapter(n) for n in range(1, 10)]
    known[1] = adapter(2, status="rejected", reason="completion 10%")
    state = rules.begin("support", known[7].name, POLICY, None, START, new_id(), new_id())
    state = state.model_copy(
        update={"stable": known[6].name, "previous": known[5].name, "candidate": known[7].name, "status": "aborted"}
    )
    ask = {"id": new_id(), "at": START, "task": "support", "verb": "start", "who": "ada", "adapter": known[2].name}
    asked = Operator.model_validate(ask)
    promoted = {"support": [known[6].name, known[5].name, known[4].name, known[0].name]}
    verdicts = judge(known, [state], [asked], promoted, {known[3].name}, 3)
    assert {number(one.name): (one.keep, one.reason) for one in verdicts} == {
        1: (False, "neither served nor to be rolled back to"),
        2: (False, "completion 10%"),
        3: (True, "its rollout was asked for"),
        4: (True, "a pool's base model"),
        5: (True, "one of the last 3 that were stable"),
        6: (True, "previous of support"),
        7: (True, "stable of support"),
        8: (True, "candidate of support"),
        9: (True, "waits for its rollout"),
    }
    answered = state.model_copy(update={"operator_seen": asked.id})
    assert not judge(known[2:3], [answered], [asked], promoted, (), 3)[0].keep


@pytest.mark.parametrize("tables", [[], ["other"]])
def test_without_a_table_nothing_registered_goes(tables: list[str]) -> None:
    """A task that no table is known of keeps every registered adapter: missing data removes nothing."""
    other = rules.begin("other", "other@v1-00000001", POLICY, None, START, new_id(), new_id())
    verdicts = judge([adapter(1), adapter(2)], [other] * len(tables), [], {}, (), 0)
    assert all(one.keep for one in verdicts)


def test_a_reward_model_stays_though_no_table_names_it() -> None:
    """A training may name it at any time; one that was rejected rewards nobody and goes."""
    table = rules.begin("support", adapter(3).name, POLICY, None, START, new_id(), new_id())
    found = [adapter(1, method="reward"), adapter(2, method="reward", status="rejected")]
    verdicts = judge(found, [table], [], {}, (), 0)
    assert [one.keep for one in verdicts] == [True, False]
