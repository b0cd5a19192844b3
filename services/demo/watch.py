"""What the demo sees of the loop: it waits for things in ClickHouse, as a user of the CLI would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.errors import RatchetError
from ratchet.schemas.rows import instant
from ratchet.services.demo.desk import TASK

POLL_S = 1.0
ENDING_S, ENDING_TRIES = 4.0, 9
"""How long between two looks at requests that are ending, and how often at most."""


class NotObserved(RatchetError):
    """Something the demo promised did not come about in time."""


class Watch:
    """Reads the loop's state for the demo; every wait has a limit and shows where it stands.

    ``alive`` raises when a part of the loop was given up.
    """

    def __init__(self, store: Store, running: Callable[[str], None], alive: Callable[[], None]) -> None:
        self._store = store
        self._alive = alive
        self._running = running

    async def ask(self, query: str, **params: Any) -> list[dict[str, Any]]:
        """Run one question off the event loop."""
        return await asyncio.to_thread(self._store.query, query, **params)

    async def until(self, what: str, limit_s: float, look: Callable[[], Any]) -> Any:
        """Wait until ``look`` (awaitable, None: not yet) gives something.

        Raises:
            NotObserved: after ``limit_s`` seconds.
        """
        deadline = time.monotonic() + limit_s
        while (seen := await look()) is None:
            self._alive()
            if time.monotonic() > deadline:
                raise NotObserved(f"{what}: not seen within {limit_s:.0f} s")
            await asyncio.sleep(POLL_S)
        return seen

    async def training(self, since: datetime, limit_s: float) -> dict[str, Any]:
        """Wait for a training job that was requested after ``since`` to finish.

        Raises:
            NotObserved: the job failed, or took longer than ``limit_s`` seconds.
        """

        async def look() -> dict[str, Any] | None:
            rows = await self.ask("training_runs", task=TASK, since=instant(since), most=1)
            if not rows:
                self._running("waiting for the retraining trigger")
                return None
            run = rows[0]
            if run["state"] in ("failed", "cancelled"):
                raise NotObserved(f"training {run['state']}: {run['reason']}")
            if run["state"] == "finished":
                return run
            progress = await self.ask("training_progress", job_id=run["job_id"])
            if progress and progress[0]["step"] != progress[0]["steps"]:
                metrics = progress[0]["metrics"]
                figures = ", ".join(
                    f"{name} {metrics[name]:.2f}" for name in ("loss", "reward_accuracy") if name in metrics
                )
                self._running(f"training: step {progress[0]['step']} of {progress[0]['steps']}, {figures}")
            else:
                self._running(f"training: {run['state']}; preparing or evaluating")
            return None

        return dict(await self.until("a finished training", limit_s, look))

    async def last_requests(self, adapter: str, rollout_id: str) -> dict[str, Any]:
        """Count what an adapter was asked in a rollout, once the requests that were under way have ended too."""
        seen: dict[str, Any] = {}
        for _ in range(ENDING_TRIES):
            before = seen
            seen = (await self.ask("adapter_requests", adapter=adapter, rollout_id=rollout_id))[0]
            if seen == before:
                break
            self._running(f"{adapter}'s last requests end: {seen['n']} so far")
            await asyncio.sleep(ENDING_S)
        return seen

    async def rollout_log(self, candidate: str) -> list[dict[str, Any]]:
        """The audit log of a candidate's rollout, its gates decoded."""
        rows = await self.ask("rollout_log", task=TASK, candidate=candidate)
        state = [row | {"gates": orjson.loads(row["gates"]), "state": orjson.loads(row["state"])} for row in rows]
        return state

    async def decided(self, candidate: str, limit_s: float, tell: Callable[[str], None]) -> list[dict[str, Any]]:
        """Wait until a candidate's rollout ended, telling each decision once; its audit log."""
        told = 0

        async def look() -> list[dict[str, Any]] | None:
            nonlocal told
            log = await self.rollout_log(candidate)
            for row in log[told:]:
                tell(sentence(row))
            told = len(log)
            ended = log and log[-1]["action"] in ("promote", "abort", "pause", "supersede")
            return log if ended else None

        return list(await self.until(f"the end of {candidate}'s rollout", limit_s, look))


def sentence(row: dict[str, Any]) -> str:
    """Say what one row of the audit log decided; a gate that passed once is proved, whatever its figures say now."""
    proved = {key.split()[0] for key in row["state"].get("proved", [])}
    gates = ", ".join(
        f"{gate['gate']} {_verdict(gate, proved)} (n {gate['stable']['n']}/{gate['candidate']['n']})"
        for gate in row["gates"]
    )
    where = f" → {row['stage']}" if row["action"] in ("start", "advance") else ""
    return f"{row['candidate']}: {row['action']}{where}" + (f": {gates}" if gates else "")


def _verdict(gate: dict[str, Any], proved: set[str]) -> str:
    return "proved" if gate["verdict"] == "inconclusive" and gate["gate"] in proved else str(gate["verdict"])
