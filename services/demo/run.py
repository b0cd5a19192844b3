"""`ratchet demo`: the whole loop, on real parts, on this machine; a report of what was observed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from ratchet.consumers.calibration import in_force
from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.models.smollm2 import ensure_base_model
from ratchet.infra.settings import Settings, load
from ratchet.schemas.errors import RatchetError
from ratchet.schemas.rows import instant
from ratchet.services import wiring
from ratchet.services.demo import bad, report, tickets
from ratchet.services.demo.desk import RULE, TASK, Desk
from ratchet.services.demo.picture import draw
from ratchet.services.demo.say import Say
from ratchet.services.demo.watch import NotObserved, Watch
from ratchet.services.rules.pair_summary import summary
from ratchet.services.stack import Stack

N_TRAIN, N_HELDOUT = 40, 32
TRAINING_LIMIT_S, ROLLOUT_LIMIT_S = 420.0, 420.0


def run(as_json: bool, seed: int) -> int:
    """Run the demo; 0 when every part of the loop was observed, else 1 (and the report says which was not)."""
    say = Say()
    base = wiring.settings()
    home = base.home / "demo"
    heldout = _prepare(home, base, seed, say)
    settings = load(home / "ratchet.toml")
    made = report.Report()
    say.title("Starting the parts: Tansu (Kafka protocol), ClickHouse's engine, vLLM on the CPU, gateway, consumers")
    with Stack(settings, tell=say.line, running=say.running) as stack:
        stack.start()
        stack.watch_in_background()
        store = wiring.store(settings)
        loop = _Loop(settings, store, made, say, heldout, seed, stack.check)
        try:
            asyncio.run(loop.turn())
        except RatchetError as error:
            made.notes.append(str(error))
            say.line(f"stopped early: {error}")
        finally:
            store.close()
        say.title("Stopping every part")
    made.seconds = say.seconds()
    return _finish(home, made, as_json, say)


def _prepare(home: Path, base: Settings, seed: int, say: Say) -> list[tickets.Conversation]:
    """Make the demo's folder anew: settings with free ports, the held-out inputs, the base model."""
    say.title("Preparing")
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(parents=True)
    say.running("unpacking SmolLM2-135M-Instruct")
    model = ensure_base_model(base.home)
    ports = {name: free_port() for name in ("kafka_port", "clickhouse_port", "vllm_port")}
    here = resources.files("ratchet.services.demo")
    lines = [
        f"home = {json.dumps(str(home))}",
        f"base_model_path = {json.dumps(str(model))}",
        f"gateway_port = {free_port()}",
        f"api_port = {free_port()}",
        (here / "ratchet.toml").read_text(encoding="utf-8"),
        "[embedded]",
        *(f"{name} = {port}" for name, port in ports.items()),
    ]
    (home / "ratchet.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _, heldout = tickets.split(seed, N_TRAIN, N_HELDOUT)
    rows = [
        {"id": item.id, "messages": tickets.messages(item), "expect": {"order": item.ticket["order"]}}
        for item in heldout
    ]
    (home / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    say.line(f"demo folder {home}; every other command works beside it with RATCHET_CONFIG={home / 'ratchet.toml'}")
    return heldout


class _Loop:
    """One turn of the loop, phase by phase, and what each phase showed."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        made: report.Report,
        say: Say,
        heldout: list[tickets.Conversation],
        seed: int,
        alive: Callable[[], None],
    ) -> None:
        self.settings, self.store, self.made, self.say = settings, store, made, say
        self.heldout, self.seed = heldout, seed
        self.watch = Watch(store, say.running, alive)
        self.desk = Desk(settings.gateway)

    async def turn(self) -> None:
        """Traffic, training, promotion, a bad adapter, rollback; the figures at the end even if one failed."""
        started = datetime.now(UTC)
        decisions: list[dict[str, Any]] = []
        try:
            await self._before()
            good = await self._traffic_and_training()
            decisions += await self._promotion(str(good["adapter"]))
            await self._after()
            decisions += await self._rollback(str(good["dataset"]))
        except RatchetError as error:
            self.made.notes.append(str(error))
            self.say.line(f"stopped early: {error}")
        finally:
            await self.desk.close()
        await self._figures()
        await self._picture(started, decisions)

    async def _before(self) -> None:
        self.say.title(f"Before: {N_HELDOUT} held-out messages, answered by the base model")
        n, k = await self.desk.ask_all(self.heldout, self._progress("held-out"), feedback=False)
        self.made.completion_before = report.completion(n, k)
        self.say.line(f"{k} of {n} answers are right tickets")

    async def _traffic_and_training(self) -> dict[str, Any]:
        self.say.title(f"Traffic: {N_TRAIN} customers write, the app answers with the base model, users judge")
        self.say.line(f"their rule: {RULE}")
        since = datetime.now(UTC)
        train, _ = tickets.split(self.seed, N_TRAIN, N_HELDOUT)
        n, k = await self.desk.ask_all(train, self._progress("customers"))
        self.say.line(f"{k} of {n} answers were right; {len(self.desk.tally.feedback_ids)} pieces of feedback sent")
        self.say.title("Training: the trigger fires by its policy, DPO runs in its own process")
        run = await self.watch.training(since, TRAINING_LIMIT_S)
        self._tell_training(run)
        return run

    async def _promotion(self, adapter: str) -> list[dict[str, Any]]:
        self.say.title(f"Rollout of {adapter} (demo-sized margins and counts: see the [tasks.support.rollout] section)")
        log = await self._rollout(adapter, seed=self.seed + 1)
        if log[-1]["action"] != "promote":
            raise NotObserved(f"{adapter} was not promoted but ended with {log[-1]['action']}: {log[-1]['reason']}")
        self.made.promoted = {"adapter": adapter, "stages": report.stages_of(log)}
        return log

    async def _after(self) -> None:
        self.say.title(f"After: the same {N_HELDOUT} held-out messages, answered by the promoted adapter")
        n, k = await self.desk.ask_all(self.heldout, self._progress("held-out"), feedback=False)
        self.made.completion_after = report.completion(n, k)
        self.say.line(f"{k} of {n} answers are right tickets")

    async def _rollback(self, good_dataset: str) -> list[dict[str, Any]]:
        self.say.title("A bad adapter: the same recipe on the same pairs, inverted")
        since = datetime.now(UTC)
        process = await bad.train_inverted(self.settings, self.store, good_dataset)
        try:
            run = await self.watch.training(since, TRAINING_LIMIT_S)
            if code := await process.wait():
                raise NotObserved(f"`ratchet train` ended with status {code}")
        finally:
            if process.returncode is None:
                process.terminate()
        self._tell_training(run)
        adapter = str(run["adapter"])
        self.say.line("its way through the same stages and gates; nobody touches it")
        log = await self._rollout(adapter, seed=self.seed + 2)
        if log[-1]["action"] != "abort":
            raise NotObserved(f"{adapter} was not rolled back but ended with {log[-1]['action']}")
        abort, before = log[-1], log[-2]
        seen = await self.watch.last_requests(adapter, before["state"]["rollout_id"])
        self.made.rolled_back = {
            "adapter": adapter,
            "stage": before["stage"],
            "requests": seen["n"],
            "switch_seconds": report.switch_seconds(abort["at"], seen["last_at"]),
        }
        return log

    async def _rollout(self, adapter: str, seed: int) -> list[dict[str, Any]]:
        """Keep customers writing until the controller has decided."""
        finished = asyncio.Event()
        traffic = asyncio.create_task(
            self.desk.ask_until(finished, seed, lambda n: self.say.running(f"customers keep writing: {n} so far"))
        )
        decided = asyncio.create_task(self.watch.decided(adapter, ROLLOUT_LIMIT_S, self.say.line))
        try:
            await asyncio.wait({traffic, decided}, return_when=asyncio.FIRST_COMPLETED)
            if traffic.done():
                traffic.result()  # raises what ended the traffic early
            return await decided
        except asyncio.CancelledError:
            traffic.cancel()
            raise
        finally:
            finished.set()
            decided.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await traffic

    async def _figures(self) -> None:
        tally = self.desk.tally
        ids = tally.inference_ids + tally.feedback_ids

        async def all_stored() -> dict[str, Any] | None:
            row = (await self.watch.ask("stored_once", ids=ids))[0]
            return row if row["n_ids"] >= len(ids) else None

        try:
            row = await self.watch.until("every event in ClickHouse", 20, all_stored)
        except NotObserved:
            row = (await self.watch.ask("stored_once", ids=ids))[0]
        self.made.events = {
            "emitted": len(ids),
            "stored": row["n_ids"],
            "duplicates": row["n_rows"] - row["n_ids"],
            "lost": len(ids) - row["n_ids"],
        }
        self.made.pairs = summary(await self.watch.ask("pair_counts", task=TASK))
        policy, now = self.settings.tasks[TASK], clock.now()
        self.made.judge = report.judge(await asyncio.to_thread(in_force, self.store, TASK, policy, now))

    async def _picture(self, started: datetime, decisions: list[dict[str, Any]]) -> None:
        rows = await self.watch.ask("completion_timeline", task=TASK, check="ticket", since=instant(started))
        if rows:
            path = self.settings.home / "quality.png"
            moves = [row for row in decisions if row["action"] != "prove"]
            await asyncio.to_thread(draw, path, rows, moves, self.made.as_json())
            self.say.line(f"picture: {path}")

    def _tell_training(self, run: dict[str, Any]) -> None:
        metrics = ", ".join(f"{name} {value:.3g}" for name, value in sorted(run["metrics"].items()))
        self.say.line(f"{run['trigger']}: {run['adapter']} trained on {run['dataset']}: {metrics}")

    def _progress(self, what: str) -> Callable[[int, int], None]:
        return lambda done, of: self.say.running(f"{what}: {done} of {of}")


def _finish(home: Path, made: report.Report, as_json: bool, say: Say) -> int:
    value = made.as_json()
    path = home / "report.json"
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    report.table(made, sys.stderr)
    say.line(f"report: {path}")
    for sentence in made.missing():
        say.line(f"NOT OBSERVED: {sentence}")
    if as_json:
        print(json.dumps(value))  # noqa: T201 - the answer
    return 0 if value["closed"] else 1
