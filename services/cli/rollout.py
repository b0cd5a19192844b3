"""`ratchet rollout`: where a rollout stands, and a person's word in it."""

from __future__ import annotations

import getpass
import threading
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.rollout_events import Rollout
    from ratchet.services.rules.deciding import Decision

app = typer.Typer(help="Where a rollout stands; start, hold, end or undo one.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Why = Annotated[str, typer.Option("--why", help="the reason, for the audit log")]
Wait = Annotated[float, typer.Option("--wait", min=1, help="seconds to wait for the controller's answer")]
Task = Annotated[str, typer.Argument(help="the task's name")]
Verb = Literal["start", "promote", "pause", "resume", "abort", "undo"]
WAIT_S = 15.0


@app.command()
def start(
    adapter: Annotated[str, typer.Argument(help="a registered adapter, task@vN-sha8")],
    why: Why = "",
    wait: Wait = WAIT_S,
) -> None:
    """Roll out an adapter: shadow first, then stage by stage behind the gates."""
    from ratchet.schemas.errors import RolloutError
    from ratchet.schemas.ids import ADAPTER_NAME

    named = ADAPTER_NAME.match(adapter)
    if named is None:
        raise RolloutError(f"{adapter!r} names no adapter; allowed: <task>@v<number>-<8 hex digits>")
    _ask(named["task"], "start", why, wait, adapter=adapter)


@app.command()
def promote(
    task: Task,
    full: Annotated[bool, typer.Option("--full", help="past all remaining stages")] = False,
    why: Why = "",
    wait: Wait = WAIT_S,
) -> None:
    """Go to the next stage (or to the end) without waiting for the gates."""
    _ask(task, "promote", why, wait, full=full)


@app.command()
def pause(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Hold a rollout where it is: the split stays, nothing is decided."""
    _ask(task, "pause", why, wait)


@app.command()
def resume(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Go on with a paused rollout; its stage starts again."""
    _ask(task, "resume", why, wait)


@app.command()
def abort(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Send everything back to the stable adapter at once."""
    _ask(task, "abort", why, wait)


@app.command()
def undo(task: Task, why: Why = "", wait: Wait = WAIT_S) -> None:
    """Serve the previous stable adapter again, after a promotion."""
    _ask(task, "undo", why, wait)


@app.command()
def status(
    task: Annotated[str | None, typer.Argument(help="one task; none: all")] = None,
    as_json: Json = False,
) -> None:
    """Show each task's routing table, and what a running rollout's gates say now."""
    import orjson

    from ratchet.infra.clock import now
    from ratchet.schemas.errors import RolloutError
    from ratchet.services import wiring
    from ratchet.services.controller.observe import observe
    from ratchet.services.controller.seed import rollouts
    from ratchet.services.rules.deciding import decide

    settings = wiring.settings()
    with wiring.store(settings) as store:
        tables = [table for table in rollouts(store) if task in (None, table.task)]
        if task is not None and not tables:
            raise RolloutError(f"task {task!r} has had no rollout yet; its requests go to the base model")
        shown: list[tuple[Rollout, Decision | None]] = []
        for table in tables:
            policy = settings.tasks.get(table.task)
            if table.status != "running" or policy is None:
                shown.append((table, None))
                continue
            instant = now()
            evidence = observe(store, table, policy, instant, settings.prioritises)
            shown.append((table, decide(table, evidence, policy.rollout, instant)))
    if as_json:
        typer.echo(orjson.dumps([_json(*one) for one in shown], option=orjson.OPT_INDENT_2))
        return
    for table, decision in shown:
        _print(table, decision)
    if not shown:
        typer.echo("no task has had a rollout yet; requests go to the base model")


def _json(table: Rollout, decision: Decision | None) -> dict[str, Any]:
    """The table as its event has it, with what the controller would decide at this moment under ``now``."""
    body = table.model_dump(mode="json")
    if decision is not None:
        gates = [gate.model_dump(mode="json") for gate in decision.gates]
        body["now"] = {"action": decision.action, "reason": decision.reason, "gates": gates}
    return body


def _print(table: Rollout, decision: Decision | None) -> None:
    typer.echo(f"{table.task}: {table.status}" + (f" in stage {table.stage!r}" if table.stage else ""))
    previous = f", previous {table.previous}" if table.previous else ""
    typer.echo(f"  stable {table.stable}{previous}")
    if table.candidate and table.status in ("running", "paused"):
        share = f"{table.weight_bp / 100:g}% of users, {table.mirror_bp / 100:g}% mirrored"
        typer.echo(f"  candidate {table.candidate}: {share}, since {table.stage_started_at:%Y-%m-%d %H:%M:%S} UTC")
    typer.echo(f"  last: {table.action} by {table.actor} at {table.at:%Y-%m-%d %H:%M:%S} UTC: {table.reason}")
    for gate in decision.gates if decision else table.gates:
        typer.echo(f"  {gate.verdict:<12} {gate.reason}")
    if decision is not None:
        typer.echo(f"  now: {decision.action}: {decision.reason}")


def _ask(task: str, verb: Verb, why: str, wait_s: float, adapter: str | None = None, full: bool = False) -> None:
    """Publish an instruction, wait for the controller's answer and say it; a refusal ends with status 1."""
    from ratchet.infra.clock import new_id, now
    from ratchet.schemas.errors import RolloutError
    from ratchet.schemas.rollout_events import Operator
    from ratchet.services import wiring

    asked = Operator(
        id=new_id(), at=now(), task=task, verb=verb, adapter=adapter, full=full, who=getpass.getuser(), why=why
    )
    answer = ask(wiring.settings(), asked, wait_s)
    if answer is None:
        raise RolloutError(
            f"no controller answered within {wait_s:g} s; {verb} stays on the topic and is followed when one runs"
        )
    if answer.action == "refuse":
        raise RolloutError(answer.reason)
    _print(answer, None)


def ask(settings: Settings, asked: Any, wait_s: float) -> Rollout | None:
    """Publish an ``operator.v1`` and wait for the routing table that answers it.

    Args:
        settings: whose Kafka.
        asked: the instruction.
        wait_s: seconds for the whole of it.

    Returns:
        The answering table; None when none came in time.

    Raises:
        BrokerError: Kafka is away: the instruction was not given.
    """
    from ratchet.infra.kafka.tail import Tail
    from ratchet.schemas.errors import BrokerError
    from ratchet.schemas.events import Event
    from ratchet.schemas.rollout_events import Rollout
    from ratchet.schemas.topics import ROLLOUT
    from ratchet.services import wiring

    answered = threading.Event()
    answers: list[Rollout] = []

    def take(event: Event) -> None:
        if isinstance(event, Rollout) and event.operator_seen == asked.id and not answers:
            answers.append(event)
            answered.set()

    publisher = wiring.publisher(settings, "ratchet-rollout")
    tail = Tail(settings.kafka, ROLLOUT, take)
    try:
        publisher.publish(asked)
        if publisher.flush(wait_s):
            raise BrokerError(f"Kafka at {settings.kafka} did not take the instruction within {wait_s:g} s")
        tail.start()
        answered.wait(wait_s)
    finally:
        tail.close()
        publisher.close()
    return answers[0] if answers else None
