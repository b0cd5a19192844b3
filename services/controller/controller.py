"""The rollout controller: observe (ClickHouse), decide (pure rules), act (vLLM, then the routing table).

One controller acts for all tasks; others follow and take over. Its state is the compacted topic ``ratchet.rollout``;
a table that it publishes takes effect at every gateway, so a rollback is one event and loads nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from ratchet.consumers.calibration import Questions
from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.errors import BrokerError, StoreError
from ratchet.schemas.events import Adapter, Event
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Gateway, Operator, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.controller.canary import Canary, Records
from ratchet.services.controller.flips import Flips
from ratchet.services.controller.hooks import Hooks
from ratchet.services.controller.judging import Judge
from ratchet.services.controller.known import Known
from ratchet.services.controller.lead import Alone, Lead
from ratchet.services.controller.residency import Residency
from ratchet.services.controller.residents import Replicas
from ratchet.services.controller.seed import rollouts
from ratchet.services.controller.troubles import Troubles
from ratchet.services.controller.unloading import Unloading
from ratchet.services.controller.writing import Writer
from ratchet.services.rules.placement import Placement, residents
from ratchet.services.rules.rollouts.deciding import Decision
from ratchet.services.rules.rollouts.fencing import Log, mended
from ratchet.services.rules.rollouts.hooks import Veto
from ratchet.services.rules.rollouts.instructions import follow, refused
from ratchet.services.rules.rollouts.starting import starting
from ratchet.services.rules.rollouts.tables import refuse
from ratchet.services.rules.rollouts.transitions import apply
from ratchet.services.rules.rollouts.waiting import UNDER_WAY

log = logging.getLogger("ratchet.controller")
ANSWER_S = 0.5
"""Between two looks at who follows a flip; an instruction is answered when it comes."""


class Controller:
    """Runs every task's rollout.

    ``known`` is what the topics told, ``decisions`` the last decision of each running rollout, by task.

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
        lead: whether this controller acts; None: it is the only one.
        records: what each adapter answered when it was first confirmed; None: since this process began.
    """

    def __init__(
        self,
        *,
        store: Questions,
        publisher: Publisher,
        replicas: Replicas,
        placement: Placement,
        folder: Callable[[Adapter], Path],
        tasks: Mapping[str, TaskPolicy],
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        interval_s: float,
        copies_wait: bool = False,
        unload_after_s: float = 600.0,
        hooks: Hooks | None = None,
        lead: Lead | None = None,
        records: Records | None = None,
    ) -> None:
        self.known = Known()
        self.decisions: dict[str, Decision] = {}
        self._store, self.lead = store, lead or Alone()
        self._tasks, self._clock, self._new_id, self._interval_s = tasks, clock, new_id, interval_s
        self._hooks = hooks or Hooks({}, clock)
        self._flips = Flips(publisher)
        self._troubles = Troubles()
        self._judge = Judge(store, self._flips, self._troubles, clock, copies_wait)
        self._residency = Residency(
            self.known, replicas, placement, folder, tasks,
            Canary(replicas, records or Records(None), self._system_prompt),
            Unloading(replicas, self._flips, unload_after_s), self._troubles,
        )  # fmt: skip
        self._writer = Writer(self.known, publisher, self.lead)
        self._preparing: dict[str, asyncio.Task[str | None]] = {}
        self._known_new: set[str] = set()
        self._wake: Callable[[], None] = lambda: None

    @property
    def states(self) -> Mapping[str, Rollout]:
        """The routing tables in force, by task."""
        return self.known.states

    def receive(self, event: Event) -> None:
        """Take an event of the state topics, in their order, or a gateway's word, from any thread."""
        if isinstance(event, Gateway):
            self._flips.receive(event)
        else:
            self.known.receive(event)
            if isinstance(event, Operator | Rollout):
                self._wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Answer people at once, and judge and reconcile every ``interval_s`` seconds, until ``stop`` is set.

        Side by side, so that neither a vLLM nor a ClickHouse that hangs holds a person up.
        """
        loop, asked = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            loop.call_soon_threadsafe(asked.set)

        self._wake = wake

        async def answering() -> None:
            while not stop.is_set():
                asked.clear()
                await self.answer(self._clock())
                await _pause(asked, min(self._interval_s, ANSWER_S))

        async def judging() -> None:
            while not stop.is_set():
                await self.judge(self._clock())
                await _pause(stop, self._interval_s)

        async def reconciling() -> None:
            while not stop.is_set():
                await self.reconcile()
                await _pause(stop, self._interval_s)

        try:
            await asyncio.gather(answering(), judging(), reconciling())
        finally:
            self._wake = lambda: None
            for preparing in self._preparing.values():
                preparing.cancel()
            await self._hooks.close()

    async def tick(self, now: datetime) -> list[Rollout]:
        """Reconcile, answer and judge once; the routing tables that were published."""
        await self.reconcile()
        tables = await self.answer(now)
        if self._preparing:
            await asyncio.wait(self._preparing.values())
            tables += await self.answer(now)
        return tables + await self.judge(now)

    async def reconcile(self) -> None:
        """Load what replicas lack, and confirm that they answer: nothing starts or advances without."""
        self.known.read()
        if self.lead.leads:
            await self._residency.reconcile(self._clock())
        else:
            self._residency.forget()

    async def answer(self, now: datetime) -> list[Rollout]:
        """Do what people ask, and follow what gateways acknowledge; the routing tables that were published.

        It needs neither ClickHouse nor vLLM: what must be loaded first is loaded beside it.
        """
        self.known.read()
        published: list[Rollout] = []
        if not self.lead.leads:
            return published
        with self._kafka():
            for asked in list(self.known.asked):
                # while a table of ours is not read back, it is not known whether it answered this
                free = asked in self.known.asked and self.known.unread(asked.task) is None
                if free and (table := await self._answer(asked, now)):
                    published.append(table)
            self._flips.look(list(self.states.values()), now)
        open_ = {asked.id for asked in self.known.asked}
        for gone in [id for id, loading in self._preparing.items() if id not in open_ and loading.done()]:
            del self._preparing[gone]
        return published

    async def judge(self, now: datetime) -> list[Rollout]:
        """Mend the topic, judge what runs and start what waits; the routing tables that were published."""
        self.known.read()
        published: list[Rollout | None] = []
        if not self.lead.leads:
            return []
        with self._kafka():
            for task in sorted(self.states):
                published.append(await self._mend(task, now))
            for task, policy in self._tasks.items():
                published += await self._decide(task, policy, now)
                published += await self._start_waiting(task, policy, now)
        return [table for table in published if table is not None]

    @contextlib.contextmanager
    def _kafka(self) -> Iterator[None]:
        """Say it once when Kafka takes no table; what was decided is decided again later."""
        try:
            yield
        except BrokerError as error:
            self._troubles.say("Kafka", f"Kafka takes no routing table, trying again: {error}")
        else:
            self._troubles.clear("Kafka")

    async def _mend(self, task: str, now: datetime) -> Rollout | None:
        """Publish a table again where the topic's last record is another one."""
        await self._writer.settle(task)
        state = self.states[task]
        table = mended(self.known.logs.get(task, Log()), now, self._new_id())
        if table is None or self.known.unread(task) is not None:
            return None
        log.warning("%s: the rollout topic ends with another table than version %d", task, state.version)
        return await (self._writer.repeat(table) if table.id == state.id else self._writer.write(table, state))

    async def _answer(self, asked: Operator, now: datetime) -> Rollout | None:
        state, policy = self.states.get(asked.task), self._policy(asked.task)
        table = follow(asked, state, policy, self.known.adapters, now, self._new_id)
        if names := residents(table) - (residents(state) if state else set()):
            preparing = self._preparing.get(asked.id)
            if preparing is None:
                self._preparing[asked.id] = preparing = asyncio.create_task(self._residency.load(names, now))
                preparing.add_done_callback(lambda _: self._wake())
            if not preparing.done():
                return None  # answered once it is there; what is asked meanwhile is answered first
            if why := self._preparing.pop(asked.id).result():
                why = f"{', '.join(sorted(names))} could not be loaded: {why}"
                table = refused(asked, state, now, self._new_id(), why)
        await self._hooks.before(state, table)
        return await self._writer.write(table, state)

    async def _start_waiting(self, task: str, policy: TaskPolicy, now: datetime) -> list[Rollout | None]:
        """Begin what waits, unless another rollout is in front of users or a hook says no."""
        state = self.states.get(task)
        adapters, resident = list(self.known.adapters.values()), self._residency.of(task)
        tables = starting(task, adapters, resident, state, policy.rollout, now, self._new_id)
        if not tables or (state is None and not await self._is_new(task)):
            return []
        if veto := await self._hooks.before(state, tables[-1]):
            return await self._vetoed(veto, task, state, now)
        published: list[Rollout | None] = []
        for table in tables:
            published.append(await self._writer.write(table, state))
            state = table
        return published

    async def _vetoed(self, veto: Veto, task: str, state: Rollout | None, now: datetime) -> list[Rollout | None]:
        """Record a hook's veto, once; the transition is asked for again at a later look."""
        if not veto.record:
            return []
        table = await self._writer.write(refuse(task, state, now, self._new_id(), veto.actor, veto.reason), state)
        if table is not None:
            self._hooks.recorded(veto)
        return [table]

    async def _is_new(self, task: str) -> bool:
        """Whether ClickHouse, too, knows no table of a task: an emptied topic must not restart from the base model."""
        if task in self._known_new:
            return True
        try:
            known = {table.task: table for table in await asyncio.to_thread(rollouts, self._store)}
        except StoreError as error:
            self._troubles.say("ClickHouse", f"no first rollout without ClickHouse: {error}")
            return False
        self._troubles.clear("ClickHouse")
        if task in known:
            log.warning("%s: the rollout topic lost its table: publishing version %d again", task, known[task].version)
            await self._writer.repeat(known[task])
            return False
        self._known_new.add(task)
        return True

    async def _decide(self, task: str, policy: TaskPolicy, now: datetime) -> list[Rollout | None]:
        state = self.states.get(task)
        if state is None or state.status not in UNDER_WAY:
            self.decisions.pop(task, None)
            return []
        decision = await self._judge.decision(state, policy, now)
        if decision is None:
            return []
        if (now_in_force := self.states.get(task)) is None or now_in_force.id != state.id:
            return []  # a person's table came in meanwhile, or another controller's
        self.decisions[task] = decision
        if decision.action == "wait":
            return []
        if decision.action in ("advance", "promote") and state.candidate not in self._residency.of(task):
            return []
        candidate = self.known.adapters.get(state.candidate or "")
        dataset = candidate.dataset if candidate else None
        table = apply(state, decision, policy.rollout, now, self._new_id(), dataset=dataset)
        if veto := await self._hooks.before(state, table):
            return await self._vetoed(veto, task, state, now)
        return [await self._writer.write(table, state)]

    def _system_prompt(self, task: str) -> str | None:
        return policy.system_prompt if (policy := self._tasks.get(task)) else None

    def _policy(self, task: str) -> RolloutPolicy | None:
        policy = self._tasks.get(task)
        return policy.rollout if policy else None


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
