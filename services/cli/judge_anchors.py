"""`ratchet judge anchors`: frozen answers that tell whether the judge moved, or what it judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ratchet.consumers.anchor_files import Anchors
    from ratchet.consumers.anchors import Watched
    from ratchet.infra.settings import Settings
    from ratchet.schemas.policies import TaskPolicy

app = typer.Typer(no_args_is_help=True, help="Frozen answers, scored every day: did the judge move, or the model?")

Task = Annotated[str, typer.Argument(help="the task's name")]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


@app.command()
def freeze(
    task: Task,
    source: Annotated[
        Path | None, typer.Option("--from", help="JSONL of answers; none: drawn from labelled ones")
    ] = None,
    most: Annotated[int, typer.Option("--n", min=2, max=1000, help="answers to draw, half of them good")] = 50,
    replace: Annotated[bool, typer.Option("--replace", help="instead of the set that is there")] = False,
    score: Annotated[bool, typer.Option(help="have the judges score them now")] = True,
    as_json: Json = False,
) -> None:
    """Freeze answers into anchors/TASK.jsonl beside ratchet.toml and score them: what later runs are compared with."""
    from ratchet.consumers import anchor_files
    from ratchet.infra import clock
    from ratchet.schemas.errors import DatasetError
    from ratchet.services import wiring

    settings, policy = _policy(task)
    path = anchor_files.path_of(settings.config_dir, task)
    if path.exists() and not replace:
        raise DatasetError(f"{path} is there already; --replace freezes another set in its place")
    if source is not None:
        drawn = anchor_files.read(task, source)
    else:
        with wiring.store(settings) as store:
            drawn = anchor_files.draw(store, task, most, policy.calibration.anchor_min_n)
    anchors = anchor_files.freeze(task, path, drawn, clock.now())
    if score:
        _tell(anchors, _run(settings, anchors), policy, settings, as_json)
    elif as_json:
        typer.echo(json.dumps(_set(anchors)))
    else:
        typer.echo(f"{len(anchors.by_id)} anchors of {task} are frozen: {path}, set {anchors.hash}")


@app.command()
def run(task: Task, as_json: Json = False) -> None:
    """Have every judge of the task score the anchors now; raise or resolve the alert of each that moved."""
    from ratchet.consumers import anchor_files

    settings, policy = _policy(task)
    anchors = anchor_files.load(task, anchor_files.path_of(settings.config_dir, task))
    _tell(anchors, _run(settings, anchors), policy, settings, as_json)


@app.command()
def show(task: Task, as_json: Json = False) -> None:
    """Show how each judge's last run over the anchors compares with the freeze."""
    from ratchet.consumers import anchor_files
    from ratchet.consumers.anchors import watch
    from ratchet.services import wiring

    settings, policy = _policy(task)
    anchors = anchor_files.load(task, anchor_files.path_of(settings.config_dir, task))
    with wiring.store(settings) as store:
        watched = watch(store, anchors, policy)
    _tell(anchors, watched, policy, settings, as_json)


def _policy(task: str) -> tuple[Settings, TaskPolicy]:
    from ratchet.services import wiring
    from ratchet.services.calibrating import policy_of

    settings = wiring.settings()
    return settings, policy_of(settings.tasks, task)


def _run(settings: Settings, anchors: Anchors) -> list[Watched]:
    import asyncio

    from ratchet.consumers.anchors import Anchoring, graders_of
    from ratchet.consumers.judge import recall_spent
    from ratchet.infra import clock
    from ratchet.services import wiring

    clients = wiring.judges(settings)
    graders = graders_of(settings.tasks, clients, settings.rubrics)
    store, publisher = wiring.store(settings), wiring.publisher(settings, "ratchet-judge-anchors")

    async def scored() -> list[Watched]:
        recall_spent(store, clients, clock.now())
        try:
            return await Anchoring(settings.tasks, settings.config_dir, graders, store, publisher).run(anchors)
        finally:
            for client in clients.values():
                await client.close()

    try:
        return asyncio.run(scored())
    finally:
        publisher.close()
        store.close()


def _set(anchors: Anchors) -> dict[str, Any]:
    return {
        "task": anchors.task,
        "path": str(anchors.path),
        "set": anchors.hash,
        "n": len(anchors.by_id),
        "frozen_at": anchors.frozen_at.isoformat(),
    }


def _tell(anchors: Anchors, watched: list[Watched], policy: TaskPolicy, settings: Settings, as_json: bool) -> None:
    from dataclasses import asdict

    from ratchet.consumers.calibration import measured
    from ratchet.consumers.rules.standing import standing
    from ratchet.infra import clock
    from ratchet.services import wiring

    now = clock.now()
    with wiring.store(settings) as store:
        calibrations = {
            (one.judge, one.rubric, one.rubric_hash): one for one in measured(store, anchors.task, policy, now)
        }
    if not as_json:
        typer.echo(
            f"task {anchors.task}: {len(anchors.by_id)} anchors, set {anchors.hash}, "
            f"frozen {anchors.frozen_at:%Y-%m-%d %H:%M} UTC, {anchors.path}"
        )
    rows = []
    for one in watched:
        found = calibrations.get((one.of.judge, one.of.rubric, one.of.rubric_hash))
        stands = standing(found, policy.judge, now)
        times = {"frozen_at": one.frozen_at.isoformat(), "last_at": one.last_at.isoformat()}
        of_people = found.as_json()["agreement"] if found else None
        rows.append(asdict(one.of) | times | asdict(one.found) | {"agreement": of_people, "standing": str(stands)})
        if not as_json:
            typer.echo(
                f"  {one.of.judge} by {one.of.rubric} ({one.of.rubric_hash}), last {one.last_at:%Y-%m-%d %H:%M} UTC"
            )
            typer.echo(f"    {_WORDS[one.found.verdict]}: {one.found.reason}")
            typer.echo(f"    {stands}")
    if as_json:
        typer.echo(json.dumps(_set(anchors) | {"judges": rows}))
    elif not watched:
        typer.echo("  no judge has scored them; ratchet judge anchors run does")


_WORDS = {
    "drifted": "the judge moved",
    "steady": "the judge is steady: what moved in its scores of the traffic is the model's or the traffic's",
    "between": "neither steady nor shown to have moved",
    "too few": "nothing can be said",
}
