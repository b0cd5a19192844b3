"""`ratchet judge`: judging stored answers again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ratchet.services.cli import judge_compare

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.schemas.policies import TaskPolicy

app = typer.Typer(no_args_is_help=True, help="LLM judges: judge stored answers again, compare candidates.")
judge_compare.add_to(app)


@app.command()
def run(
    task: Annotated[str, typer.Argument(help="a task of ratchet.toml")],
    since: Annotated[str, typer.Option("--since", help="30m, 24h, 7d, 2w, a date or a time with a zone")] = "24h",
    until: Annotated[str, typer.Option("--until", help="likewise; without it, now")] = "",
    judge: Annotated[str, typer.Option("--judge", help="under [judges]; without it, those of the task")] = "",
    rubric: Annotated[str, typer.Option("--rubric", help="NAME.vN; without it, the task's")] = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="answers at most, the oldest first")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="say what it would cost, and ask no judge")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Judge the sample of stored answers again, after a rubric changed or with another judge.

    What has a score by this judge and rubric already is not judged, or paid for, a second time.
    """
    import asyncio
    from dataclasses import asdict

    from ratchet.consumers.judge import Judge, recall_spent
    from ratchet.consumers.rejudge import Rejudging
    from ratchet.infra import clock
    from ratchet.services import wiring
    from ratchet.services.rules.since import instant

    now = clock.now()
    try:
        first, last = instant(since, now), instant(until, now) if until else now
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since, --until") from None
    if first >= last:
        raise typer.BadParameter(f"{until or 'now'} is not after --since {since}", param_hint="--until")
    settings = wiring.settings()
    policy = _policy(settings, task, judge, rubric)
    clients, cache = wiring.judges(settings), wiring.judge_cache(settings)
    publisher = wiring.publisher(settings, "ratchet-judge-run")
    store = wiring.store(settings)
    try:
        judging = Judge({task: policy}, publisher, clients, cache=cache, rubrics=settings.rubrics)
        again = Rejudging(store, judging, publisher, task, first, last)
        chosen = again.choose(limit)
        grader = judging.graders[task]
        said: dict[str, object] = {
            "task": task,
            "judge": grader.word,
            "rubric": grader.rubric.name,
            "rubric_hash": grader.rubric.hash,
        }
        said |= {"stored": chosen.stored, "drawn": chosen.drawn, "reweigh": len(chosen.reweigh)}
        planned = again.plan(chosen)
        if not as_json:
            typer.echo(
                f"{chosen.stored:,} answers stored, {chosen.drawn:,} in the sample, {planned.answers:,} to judge by "
                f"{grader.word} with {grader.rubric.name}: {planned.requests:,} requests, at most {planned.tokens:,} "
                f"tokens, {_usd(planned.cost_usd)}"
            )
        if plan:
            if as_json:
                typer.echo(json.dumps(said | asdict(planned)))
            return
        recall_spent(store, clients, now)

        async def work() -> dict[str, object]:
            from rich.console import Console
            from rich.progress import Progress

            with Progress(console=Console(stderr=True), disable=as_json) as progress:
                bar = progress.add_task("judging", total=planned.answers)
                done = await again.run(chosen, lambda n: progress.advance(bar, n))
            for client in clients.values():
                await client.close()
            return asdict(done)

        done = asyncio.run(work())
    finally:
        publisher.close()
        store.close()
        cache.close()
    if as_json:
        typer.echo(json.dumps(said | done))
        return
    typer.echo(
        f"{done['judged']:,} judged ({done['cached']:,} from the cache), {done['abstained']:,} abstained, "
        f"{done['reweighed']:,} with another weight, {done['left']:,} left; {done['tokens']:,} tokens, "
        f"{_usd(done['cost_usd'])}"
    )
    if done["stopped"]:
        typer.echo(f"ended early: {done['stopped']}")


def _policy(settings: Settings, task: str, judge: str, rubric: str) -> TaskPolicy:
    """The task's policy with the judge and the rubric that were asked for.

    Raises:
        SettingsError: no such task.
    """
    from ratchet.schemas.errors import SettingsError

    if task not in settings.tasks:
        raise SettingsError(f"task {task!r}; allowed: {', '.join(sorted(settings.tasks)) or 'none is declared'}")
    policy = settings.tasks[task]
    changed: dict[str, object] = {"enabled": True}
    if judge:
        changed |= {"judges": [judge], "quorum": None}
    if rubric:
        changed["rubric"] = rubric
    return policy.model_copy(update={"judge": policy.judge.model_copy(update=changed)})


def _usd(amount: object) -> str:
    return f"{amount:,.4f} USD" if isinstance(amount, float) else "USD unknown (no price in the settings)"
