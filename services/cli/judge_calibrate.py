"""`ratchet judge calibrate`: how far a judge can be trusted, by human labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ratchet.consumers.calibration import Corrected
    from ratchet.consumers.rules.calibration import Estimate
    from ratchet.consumers.rules.standing import Calibration, Standing


def calibrate(
    task: Annotated[str, typer.Argument(help="the task's name")],
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help='JSONL: {"inference_id", "label"} or {"score", "label"} a line; none: feedback'),
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="one judge; whose a file's scores are")] = None,
    rubric: Annotated[str | None, typer.Option("--rubric", help="one rubric, or its hash")] = None,
    since: Annotated[str | None, typer.Option("--since", help="of the corrected figures: 24h, 7d, a date")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="the file's labels count from now on")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output")] = False,
) -> None:
    """Measure judges against people: agreement, κ, error rates, and the traffic's figures without those errors."""
    from ratchet.infra import clock
    from ratchet.services import calibrating, wiring
    from ratchet.services.rules.since import instant

    settings, now = wiring.settings(), clock.now()
    policy = calibrating.policy_of(settings.tasks, task)
    try:
        start = instant(since, now) if since else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    if keep and labels is None:
        raise typer.BadParameter("goes with --labels: feedback counts as it is", param_hint="--keep")
    file = calibrating.read_labels(labels) if labels else None
    kept = 0
    if file is not None and file.has_scores:
        if keep:
            raise typer.BadParameter("goes with labels by inference_id, not with scores", param_hint="--keep")
        found = [calibrating.of_scores(task, file, policy, now, judge or str(labels), rubric or "")]
    else:
        with wiring.store(settings) as store:
            if file is None:
                found = calibrating.of_feedback(store, task, policy, start, now)
            else:
                found = calibrating.of_labels(store, task, file, policy, start, now)
                if keep:
                    kept = calibrating.keep(store, wiring.publisher(settings, "ratchet-judge"), task, file, now)
        found = [
            one
            for one in found
            if judge in (None, one.calibration.judge)
            and rubric in (None, one.calibration.rubric, one.calibration.rubric_hash)
        ]
    problems = {"bad_records": file.bad, "examples": file.examples, "kept": kept} if file else {}
    if as_json:
        typer.echo(json.dumps({"task": task, "judges": [one.as_json() for one in found]} | problems))
        return
    for problem in file.examples if file else []:
        typer.echo(f"left out: {problem}", err=True)
    if not found:
        typer.echo(f"task {task}: {calibrating.nothing(judge, rubric)}")
    for one in found:
        _print(one.calibration, one.standing, one.corrected)
    if kept:
        typer.echo(f"{kept} labels are in Kafka and count from now on")


def _print(calibration: Calibration, standing: Standing, corrected: Corrected) -> None:
    of_hash = f" ({calibration.rubric_hash})" if calibration.rubric_hash else ""
    typer.echo(f"{calibration.judge} by {calibration.rubric or 'no named rubric'}{of_hash} on task {calibration.task}")
    cells = (calibration.both_good, calibration.judge_only_good, calibration.people_only_good, calibration.both_bad)
    also = [f"{calibration.undecided} undecided"] * bool(calibration.undecided)
    also += [f"{calibration.expired} expired"] * bool(calibration.expired)
    _line("labels", f"n = {calibration.n}" + (f" ({', '.join(also)})" if also else ""))
    _line("judge/people", "good/good {}, good/bad {}, bad/good {}, bad/bad {}".format(*cells))
    _line("agreement", _figure(calibration.agreement))
    _line("Cohen's κ", _figure(calibration.kappa, "undefined: both always say the same one thing"))
    if calibration.weighted_kappa:
        _line("weighted κ", f"{calibration.weighted_kappa} (five grades, squared distances)")
    _line("sensitivity q1", _figure(calibration.sensitivity, "unknown: no label of a good answer"))
    _line("specificity q0", _figure(calibration.specificity, "unknown: no label of a bad answer"))
    _line("expires", f"{calibration.expires_at:%Y-%m-%d}" if calibration.expires_at else "not known")
    _line("standing", str(standing))
    _line("good answers", f"{_figure(corrected.naive, 'nothing judged')} as the judge says")
    _line("  corrected", _figure(corrected.rate, corrected.why_no_rate))
    _line("mean score", f"{_figure(corrected.naive_mean, 'too little judged')} as the judge says")
    _line("  corrected", _figure(corrected.mean, corrected.why_no_mean))
    if corrected.tuned is not None:
        _line("  tuned", f"{corrected.tuned}, λ = {corrected.power:.2f}")


def _line(name: str, text: str) -> None:
    typer.echo(f"  {name:<15} {text}")


def _figure(figure: Estimate | None, why: str = "no labels") -> str:
    return str(figure) if figure is not None else why
