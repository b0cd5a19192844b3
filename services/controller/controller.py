"""The rollout controller: observe (ClickHouse), decide (pure rules), act (vLLM, then the routing table).

One controller runs for all tasks. Its state is the compacted topic ``ratchet.rollout``; a table
that it publishes takes effect at every gateway, so a rollback is one event and loads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
from collections import deque
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path

from ratchet.consumers.calibration import Questions
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, ModelError, StoreError
from ratchet.schemas.events import Adapter, Event
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Gateway, Operator, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.controller.flips import Flips
from ratchet.services.controller.hooks import Hooks
from ratchet.services.controller.observe import observe
from ratchet.services.controller.residents import ReplicaAdapters, ensure, wanted
from ratchet.services.controller.seed import rollouts
from ratchet.services.controller.unloading import Unloading
from ratchet.services.rules.deciding import Decision, decide
from ratchet.services.rules.hooks import Veto
from ratchet.services.rules.instructions import follow, refused
from ratchet.services.rules.placement import Placement
from ratchet.services.rules.rollout import apply
from ratchet.services.rules.starting import starting
from ratchet.services.rules.tables import refuse
from ratchet.services.rules.waiting import UNDER_WAY

log = logging.getLogger("ratchet.controller")
FLUSH_S = 5.0


class Controller:
    """Runs every task's rollout.

    ``states`` are the routing tables in force and ``decisions`` the last decision of each running
    rollout, both by task.

    Args:
        store: ClickHouse.
        publisher: takes routing tables.
        replicas: every vLLM replica.
        placement: which of them have which adapter.
        folder: the folder to load an adapter from, once its files were checked.
        tasks: the declared tasks.
        clock: the present instant.
        new_id: makes event ids.
        interval_s: seconds between two looks.
        copies_wait: mirrored copies wait behind users' requests, so their latency is no evidence.
        unload_after_s: seconds after which an adapter that nothing routes to any more is unloaded.
        hooks: who is asked before a transition.
    """

    def __init__(
        self,
        *,
        store: Questions,
        publisher: Publisher,
        replicas: ReplicaAdapters,
        placement: Placement,
        folder: Callable[[Adapter], Path],
        tasks: Mapping[str, TaskPolicy],
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        interval_s: float,
        copies_wait: bool = False,
        unload_after_s: float = 600.0,
        hooks: Hooks | None = None,
    ) -> None:
        self.states: dict[str, Rollout] = {}
        self.decisions: dict[str, Decision] = {}
        self._store, self._publisher = store, publisher
        self._replicas, self._placement, self._folder, self._copies_wait = replicas, placement, folder, copies_wait
        self._tasks, self._clock, self._new_id, self._interval_s = tasks, clock, new_id, interval_s
        self._hooks = hooks or Hooks({}, clock)
        self._flips = Flips(publisher)
        self._unloading = Unloading(replicas, self._flips, unload_after_s)
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._adapters: dict[str, Adapter] = {}
        self._asked: deque[Operator] = deque()
        self._answered: set[str] = set()
        self._behind: set[str] = set()
        self._known_new: set[str] = set()
        self._resident: dict[str, frozenset[str]] = {}
        self._said: dict[str, str] = {}

    def receive(self, event: Event) -> None:
        """Take an event of the state topics, in their order, or a gateway's word, from any thread."""
        if isinstance(event, Gateway):
            self._flips.receive(event)
        else:
            self._inbox.put(event)

    async def run(self, stop: asyncio.Event) -> None:
        """Look, and reconcile the replicas, every ``interval_s`` seconds until ``stop`` is set.

        Side by side, so that a vLLM that hangs delays no rollback.
        """

        async def looking() -> None:
            while not stop.is_set():
                await self.look(self._clock())
                await _pause(stop, self._interval_s)

        async def reconciling() -> None:
            while not stop.is_set():
                await self.reconcile()
                await _pause(stop, self._interval_s)

        await asyncio.gather(looking(), reconciling())
        await self._hooks.close()

    async def tick(self, now: datetime) -> list[Rollout]:
        """Reconcile once, then look once; the routing tables that were published."""
        self._read_inbox()
        await self.reconcile()
        return await self.look(now)

    async def reconcile(self) -> None:
        """Load what a replica lacks of the adapters in routing tables and of those that wait.

        What the replicas of an adapter confirmed is remembered: nothing else starts or advances.
        """
        needs = self._needs()
        places = self._places(frozenset().union(*needs.values()))
        for task, names in needs.items():
            try:
                here = {name: places[name] for name in names}
                loaded = await asyncio.to_thread(ensure, self._replicas, here, dict(self._adapters), self._folder)
            except ModelError as error:
                self._resident[task] = frozenset()
                self._say(f"vLLM for {task}", f"{task}: no rollout starts or advances: {error}")
                continue
            self._clear(f"vLLM for {task}")
            self._resident[task] = names
            if loaded:
                log.info("%s: loaded where a replica lacked it: %s", task, ", ".join(loaded))
        wanted_now = frozenset().union(*needs.values())
        await self._unloading.run(wanted_now, list(self.states.values()), self._clock())

    def _places(self, names: Collection[str]) -> dict[str, tuple[str, ...]]:
        known = self._adapters
        return self._placement.of(names, {name: known[name].base_model for name in names if name in known})

    def _needs(self) -> dict[str, frozenset[str]]:
        adapters = list(self._adapters.values())
        most = {task: policy.rollout.best_arm.candidates for task, policy in self._tasks.items()}
        tasks = {*self._tasks, *self.states}
        return {task: wanted(task, self.states.get(task), adapters, most.get(task, 1)) for task in tasks}

    async def look(self, now: datetime) -> list[Rollout]:
        """Answer people, start what waits, judge what runs; the routing tables that were published.

        People come first, since what they ask must work while ClickHouse or vLLM is away. What
        is away is said once, and nothing is decided without it.
        """
        self._read_inbox()
        published: list[Rollout] = []
        try:
            await self._publish_again()
            while self._asked:
                published.append(await self._answer(self._asked[0], now))
                self._asked.popleft()
            for task, policy in self._tasks.items():
                published += await self._judge(task, policy, now)
                published += await self._start_waiting(task, policy, now)
            self._flips.look(list(self.states.values()), now)
        except BrokerError as error:
            self._say("Kafka", f"Kafka takes no routing table, trying again: {error}")
        else:
            if published:
                self._clear("Kafka")
        return published

    def _read_inbox(self) -> None:
        """Take what came in; only where no answer is half given, never from `reconcile` beside `look`."""
        while not self._inbox.empty():
            match self._inbox.get_nowait():
                case Rollout() as table:
                    self._take_table(table)
                case Adapter() as adapter:
                    self._adapters[adapter.name] = adapter
                case Operator() as asked if asked.id not in self._answered and asked not in self._asked:
                    self._asked.append(asked)

    def _take_table(self, table: Rollout) -> None:
        held = self.states.get(table.task)
        if held is None or table.version > held.version:
            self.states[table.task] = table
            self._behind.discard(table.task)
        elif table.version < held.version:
            # the topic was emptied and seeded with an older table than ours
            self._behind.add(table.task)
        if table.operator_seen:
            self._answered.add(table.operator_seen)
            # topic order: what was asked before the instruction that a table answers is answered too
            asked = [one for one in self._asked if one.task == table.task]
            for position, one in enumerate(asked):
                if one.id == table.operator_seen:
                    for answered in asked[: position + 1]:
                        self._asked.remove(answered)

    async def _publish_again(self) -> None:
        for task in sorted(self._behind):
            log.warning(
                "%s: the rollout topic holds an older table than version %d: publishing it again",
                task,
                self.states[task].version,
            )
            await self._publish(self.states[task])
        self._behind.clear()

    async def _answer(self, asked: Operator, now: datetime) -> Rollout:
        state, policy = self.states.get(asked.task), self._policy(asked.task)
        table = follow(asked, state, policy, self._adapters, now, self._new_id)
        if table.action == "start" and table.candidate:
            places = self._places(frozenset([table.candidate]).union(*self._needs().values()))
            here = {table.candidate: places[table.candidate]}
            try:
                await asyncio.to_thread(ensure, self._replicas, here, dict(self._adapters), self._folder)
            except ModelError as error:
                table = refused(asked, state, now, self._new_id(), f"{table.candidate} could not be loaded: {error}")
        await self._hooks.before(state, table)
        await self._publish(table)
        self._answered.add(asked.id)
        return table

    async def _start_waiting(self, task: str, policy: TaskPolicy, now: datetime) -> list[Rollout]:
        """Begin what waits, unless another rollout is in front of users or a hook says no."""
        state = self.states.get(task)
        adapters, resident = list(self._adapters.values()), self._resident.get(task, frozenset())
        tables = starting(task, adapters, resident, state, policy.rollout, now, self._new_id)
        if not tables or (state is None and not await self._is_new(task)):
            return []
        if veto := await self._hooks.before(state, tables[-1]):
            return await self._vetoed(veto, task, state, now)
        for table in tables:
            await self._publish(table)
        return tables

    async def _vetoed(self, veto: Veto, task: str, state: Rollout | None, now: datetime) -> list[Rollout]:
        """Record a hook's veto, once; the transition is asked for again at a later look."""
        if not veto.record:
            return []
        table = refuse(task, state, now, self._new_id(), veto.actor, veto.reason)
        await self._publish(table)
        return [table]

    async def _is_new(self, task: str) -> bool:
        """Whether ClickHouse, too, knows no table of a task: an emptied topic must not restart from the base model."""
        if task in self._known_new:
            return True
        try:
            known = {table.task: table for table in await asyncio.to_thread(rollouts, self._store)}
        except StoreError as error:
            self._say("ClickHouse", f"no first rollout without ClickHouse: {error}")
            return False
        self._clear("ClickHouse")
        if task in known:
            log.warning("%s: the rollout topic lost its table: publishing version %d again", task, known[task].version)
            await self._publish(known[task])
            return False
        self._known_new.add(task)
        return True

    async def _judge(self, task: str, policy: TaskPolicy, now: datetime) -> list[Rollout]:
        state = self.states.get(task)
        if state is None or state.status not in UNDER_WAY:
            self.decisions.pop(task, None)
            return []
        waiting = self._flips.waiting_for(state, now)
        try:
            evidence = await asyncio.to_thread(observe, self._store, state, policy, now, self._copies_wait, waiting)
        except StoreError as error:
            self._say("ClickHouse", f"nothing is decided without ClickHouse: {error}")
            return []
        self._clear("ClickHouse")
        if self.states.get(task) is not state:
            return []  # another controller's table came in meanwhile
        decision = decide(state, evidence, policy.rollout, now)
        self.decisions[task] = decision
        if decision.action == "wait":
            return []
        if decision.action in ("advance", "promote") and state.candidate not in self._resident.get(task, frozenset()):
            return []
        candidate = self._adapters.get(state.candidate or "")
        dataset = candidate.dataset if candidate else None
        table = apply(state, decision, policy.rollout, now, self._new_id(), dataset=dataset)
        if veto := await self._hooks.before(state, table):
            return await self._vetoed(veto, task, state, now)
        await self._publish(table)
        return [table]

    async def _publish(self, table: Rollout) -> None:
        self._publisher.publish(table)
        self.states[table.task] = table
        log.info("%s: %s %s: %s", table.task, table.action, table.stage, table.reason)
        left = await asyncio.to_thread(self._publisher.flush, FLUSH_S)
        if left:
            self._say("delivery", f"Kafka has not taken {left} records yet; they are kept and sent again")
        else:
            self._clear("delivery")

    def _policy(self, task: str) -> RolloutPolicy | None:
        policy = self._tasks.get(task)
        return policy.rollout if policy else None

    def _say(self, about: str, message: str) -> None:
        """Log a trouble when it begins or changes, not at every tick."""
        if self._said.get(about) != message:
            self._said[about] = message
            log.warning("%s", message)

    def _clear(self, about: str) -> None:
        if self._said.pop(about, None):
            log.warning("%s: fine again", about)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
