"""`ratchet rollout lint` and `ratchet rollout simulate`: what a policy will do, before it does it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.services.rules.rollouts.summary import Summary, Times
    from ratchet.services.rules.rollouts.task_traffic import Measured

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
Days = Annotated[float, typer.Option("--days", min=0.01, help="how far back recorded traffic is looked at")]
PerHour = Annotated[float | None, typer.Option("--requests-per-hour", min=0.01, help="instead of what was recorded")]
Users = Annotated[int | None, typer.Option("--users", min=2, help="distinct users within a few days")]
ActivitySd = Annotated[float | None, typer.Option("--activity-sd", min=0, help="of the log of a user's activity")]
Icc = Annotated[float | None, typer.Option("--icc", min=0, max=0.9, help="correlation of two requests of one user")]
Rate = Annotated[float | None, typer.Option(min=0, max=1)]
Hours = Annotated[float | None, typer.Option("--delay-hours", min=0, help="from a request to its outcome or thumb")]
Sigma = Annotated[float | None, typer.Option("--latency-sigma", min=0.01, help="of the log of latencies")]


def lint(
    task: Annotated[str | None, typer.Argument(help="none: every task")] = None,
    days: Days = 7,
    requests_per_hour: PerHour = None,
    users: Users = None,
    activity_sd: ActivitySd = None,
    icc: Icc = None,
    completion: Rate = None,
    error_rate: Rate = None,
    satisfaction: Rate = None,
    feedback_share: Rate = None,
    outcome_share: Rate = None,
    delay_hours: Hours = None,
    latency_sigma: Sigma = None,
    as_json: Json = False,
) -> None:
    """Refuse a rollout policy that can never decide, or that lets harm through."""
    from ratchet.schemas.errors import RolloutError
    from ratchet.services import wiring
    from ratchet.services.rollout_plan import findings

    settings = wiring.settings()
    said = _said(
        requests_per_hour=requests_per_hour,
        users=users,
        activity_sd=activity_sd,
        icc=icc,
        completion=completion,
        error_rate=error_rate,
        satisfaction=satisfaction,
        feedback_share=feedback_share,
        outcome_share=outcome_share,
        delay_h=delay_hours,
        latency_sd=latency_sigma,
    )
    shown, errors = [], 0
    for name in [task] if task else sorted(settings.tasks):
        policy = _policy(settings, name)
        seen, source, trusted = _traffic(settings, name, said, days)
        found = findings(policy, seen if "assumed" not in source else None, settings.prioritises, trusted)
        errors += sum(one.severity == "error" for one in found)
        shown.append({"task": name, "traffic": source, "findings": [asdict(one) for one in found]})
        if not as_json:
            typer.echo(f"{name}: {source}")
            for one in found:
                typer.echo(f"  {one}")
            if not found:
                typer.echo("  nothing to say against its rollout policy")
    if as_json:
        typer.echo(json.dumps(shown))
    if errors:
        raise RolloutError(f"{errors} {'error' if errors == 1 else 'errors'} in the rollout policy; see above")


def simulate(
    task: Annotated[str, typer.Argument(help="the task's name")],
    days: Days = 7,
    requests_per_hour: PerHour = None,
    users: Users = None,
    activity_sd: ActivitySd = None,
    icc: Icc = None,
    completion: Rate = None,
    error_rate: Rate = None,
    satisfaction: Rate = None,
    feedback_share: Rate = None,
    outcome_share: Rate = None,
    delay_hours: Hours = None,
    latency_sigma: Sigma = None,
    rollouts: Annotated[int, typer.Option(min=20, help="of each candidate")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="the same seed, the same figures")] = 1,
    look_minutes: Annotated[
        float | None, typer.Option(min=0.001, help="between looks; none: an eighth of the shortest stage, 30 at most")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how long a rollout takes to decide, stage by stage and gate by gate, and how often it is wrong."""
    from ratchet.services import wiring
    from ratchet.services.rollout_plan import traffic
    from ratchet.services.rules.rollouts.simulation import gates_at, look_hours, simulate, time_enough
    from ratchet.services.rules.rollouts.summary import summarise
    from ratchet.services.rules.rollouts.task_traffic import Measured, candidates

    settings = wiring.settings()
    policy = _policy(settings, task)
    said = _said(
        requests_per_hour=requests_per_hour,
        users=users,
        activity_sd=activity_sd,
        icc=icc,
        completion=completion,
        error_rate=error_rate,
        satisfaction=satisfaction,
        feedback_share=feedback_share,
        outcome_share=outcome_share,
        delay_h=delay_hours,
        latency_sd=latency_sigma,
    )
    seen, source, _ = _traffic(settings, task, said, days)
    seen = seen or Measured()
    made = traffic(policy, seen, settings.prioritises)
    look_h = look_hours(policy.rollout) if look_minutes is None else look_minutes / 60
    asked, gates = candidates(policy, made), list(gates_at(policy.rollout))
    summaries: dict[str, Summary] = {}
    for index, (name, difference) in enumerate(asked.items()):
        outcomes = []
        each = simulate(policy.rollout, made, difference, rollouts, seed + index, look_h, time_enough(policy.rollout))
        for done, outcome in enumerate(each, 1):
            outcomes.append(outcome)
            if sys.stderr.isatty() and done % 10 == 0:
                typer.echo(f"\r{name}: {done} of {rollouts}\x1b[K", nl=False, err=True)
        summaries[name] = summarise(outcomes, gates)
    if sys.stderr.isatty():
        typer.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        body = {"task": task, "traffic": asdict(seen), "source": source, "seed": seed, "look_h": look_h}
        typer.echo(json.dumps(body | {"candidates": {name: asdict(one) for name, one in summaries.items()}}))
        return
    typer.echo(f"{task}: {source}; {rollouts} rollouts each, seed {seed}, a look every {60 * look_h:.3g} minutes")
    _show(summaries)


COMMANDS = (lint, simulate)


def _said(**given: float | None) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _policy(settings: Settings, task: str) -> Any:
    from ratchet.schemas.errors import SettingsError

    if task not in settings.tasks:
        raise SettingsError(f"task {task!r}; allowed: {', '.join(sorted(settings.tasks)) or 'none is declared'}")
    return settings.tasks[task]


def _traffic(
    settings: Settings, task: str, said: dict[str, Any], days: float
) -> tuple[Measured | None, str, dict[str, bool] | None]:
    """The task's traffic, what was said in place of what was recorded; where it is from; whether the judge decides."""
    from ratchet.infra.clock import now
    from ratchet.schemas.errors import StoreError
    from ratchet.services import wiring
    from ratchet.services.rollout_plan import measured, trusted
    from ratchet.services.rules.rollouts.task_traffic import Measured

    instant, policy, judge = now(), settings.tasks[task], None
    seen: Measured | None = None
    try:
        with wiring.store(settings) as store:
            seen = measured(store, task, policy, instant - timedelta(days=days), instant)
            judge = trusted(store, task, policy, instant)
        source = f"traffic of the last {days:g} days" if seen else f"too little traffic in the last {days:g} days"
    except StoreError as error:
        typer.echo(f"ratchet: {error}", err=True)
        source = "ClickHouse does not say what was recorded"
    if said:
        source += f", with {', '.join(f'{name} {value:g}' for name, value in said.items())} as said"
    elif seen is None:
        source += ", so the usual figures are assumed"
    if seen or said:
        seen = replace(seen or Measured(), **said)
        per = f", {seen.users:,} users" if seen.users else ""
        source += f": {seen.requests_per_hour:,.0f} requests an hour{per}"
    return seen, source, judge


def _show(summaries: dict[str, Summary]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="how it ends")
    table.add_column("candidate", no_wrap=True)
    for name in ("promoted", "aborted", "paused", "requests", "hours, P50 / P90"):
        table.add_column(name, justify="right")
    for name, one in summaries.items():
        requests = one.harm_requests if one.aborted.value > 0.5 else one.requests
        table.add_row(
            name,
            f"{one.promoted.value:.1%} ({one.promoted.low:.1%}–{one.promoted.high:.1%})",
            f"{one.aborted.value:.1%}",
            f"{one.paused.value:.1%}",
            "" if requests is None else f"{requests.value:,.0f}",
            _hours(one.hours),
        )
    console.print(table)
    equal = summaries["equal"]
    stages = Table(title="an equal candidate: hours in each stage, and until each gate passed")
    for name in ("stage", "gate"):
        stages.add_column(name)
    for name in ("reached or passed", "hours, P50 / P90"):
        stages.add_column(name, justify="right")
    for stage, left in equal.stages.items():
        stages.add_row(stage, "", f"{left.share:.0%}", _hours(left))
        for gate, passed in equal.gates.get(stage, {}).items():
            stages.add_row("", gate, f"{passed.share:.0%}", _hours(passed))
    console.print(stages)
    if equal.stuck:
        reasons = ", ".join(f"{gate} {k}" for gate, k in equal.stuck.items())
        console.print(f"an equal candidate is paused, undecided, by: {reasons} of {equal.rollouts}")


def _hours(found: Times | None) -> str:
    return "" if found is None else f"{found.median:.1f} / {found.p90:.1f}"
