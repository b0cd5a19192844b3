"""Commands that train and measure: train, evaluate."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ratchet.services import wiring
from ratchet.services.cli import evaluation
from ratchet.services.cli.training_view import TrainingView

if TYPE_CHECKING:
    from ratchet.infra.settings import Settings
    from ratchet.trainers.job import Outcome

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


def train(
    task: str,
    method: Annotated[
        str | None, typer.Option(help="dpo, sft, kto, reward, grpo or rloo; none: the task's own")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="version; none: one is built from what is stored now")] = None,
    base_model: Annotated[Path | None, typer.Option(help="folder of the model to train on")] = None,
    epochs: Annotated[float | None, typer.Option(min=0)] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0)] = None,
    beta: Annotated[float | None, typer.Option(min=0)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    adapter_type: Annotated[str | None, typer.Option(help="lora, dora, ia3, prefix, prompt or full")] = None,
    quantization: Annotated[str | None, typer.Option(help="nf4: the frozen base model in 4 bits (QLoRA)")] = None,
    lora_r: Annotated[int | None, typer.Option(min=1)] = None,
    max_length: Annotated[int | None, typer.Option(min=16, help="tokens of prompt and answer together")] = None,
    max_pairs: Annotated[int | None, typer.Option(min=1, help="train on a part of the dataset")] = None,
    reward_adapter: Annotated[str | None, typer.Option(help="of grpo and rloo: a reward model")] = None,
    reward_check: Annotated[str | None, typer.Option(help="of grpo and rloo: a check of the task")] = None,
    num_generations: Annotated[int | None, typer.Option(min=2, help="of grpo and rloo: answers to a prompt")] = None,
    early_stopping: Annotated[
        str | None, typer.Option(help="loss or preference_accuracy: of held-out rows, end where it gets no better")
    ] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    serve: Annotated[bool, typer.Option(help="load the adapter into vLLM and evaluate it there")] = True,
    plan: Annotated[bool, typer.Option("--plan", help="say what it would take, and whether that fits")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="leave it to `ratchet train-worker`; see `jobs`")] = False,
    as_json: Json = False,
) -> None:
    """Train an adapter now, register it, and publish what became of it."""
    from ratchet.schemas.events import Method
    from ratchet.services.learning import train_now

    if method is not None and method not in get_args(Method):
        raise typer.BadParameter(f"{method!r}; allowed: {', '.join(get_args(Method))}", param_hint="--method")
    if detach and base_model is not None:
        raise typer.BadParameter(
            "a detached job trains on a pool's base model: name that one", param_hint="--base-model"
        )
    settings = wiring.settings()
    if base_model is not None:
        settings = settings.model_copy(update={"base_model_path": base_model, "base_model": base_model.resolve().name})
    wanted: dict[str, object] = {
        "method": method,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "beta": beta,
        "batch_size": batch_size,
        "adapter_type": adapter_type,
        "quantization": quantization,
        "lora_r": lora_r,
        "max_length": max_length,
        "max_pairs": max_pairs,
        "reward_adapter": reward_adapter,
        "reward_check": reward_check,
        "num_generations": num_generations,
        "early_stopping": early_stopping,
        "seed": seed,
    }
    params = {name: value for name, value in wanted.items() if value is not None}
    if plan:
        from ratchet.services.planning import plan_now

        _tell_plan(plan_now(settings, task, dataset, params, serve=serve), as_json)
        return
    if detach:
        _detached(settings, task, params, dataset, as_json)
        return
    with TrainingView(sys.stderr) as view:
        outcome = train_now(settings, task, dataset, params, serve, view.show, lambda text: typer.echo(text, err=True))
    _tell(outcome, as_json)
    if outcome.adapter is None:
        raise typer.Exit(1)


def _detached(settings: Settings, task: str, params: dict[str, Any], dataset: str | None, as_json: bool) -> None:
    from ratchet.services.jobs import request

    asked = request(settings, task, params, dataset)
    told = f"job {asked.job_id} of task {task} is asked for; `ratchet jobs show {asked.job_id}` says what becomes of it"
    typer.echo(asked.to_bytes() if as_json else told)


def _tell_plan(planned: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(planned))
    else:
        memory = dict(planned["memory"])
        total = memory.pop("total")
        typer.echo(f"{planned['rows']} rows of {planned['dataset']}, {planned['too_long']} too long")
        typer.echo(f"  tokens of a row: median {planned['length_median']}, longest {planned['length_longest']}")
        typer.echo(f"  {planned['trained']:,} of {planned['parameters']:,} parameters of {planned['base_model']} learn")
        seconds = planned["seconds"]
        time = "unknown: no run like it is recorded here"
        if seconds is not None:
            time = f"{seconds:.0f} s, by {planned['seconds_from_runs']} recorded runs"
        typer.echo(f"  {planned['steps']} steps, {planned['tokens']:,} tokens; time {time}")
        available = f"{planned['available'] / 2**20:.0f} MiB are {planned['available_is']}"
        typer.echo(f"  memory about {total / 2**20:.0f} MiB; {available}")
        typer.echo("    " + ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items() if size))
        typer.echo(planned["refusal"] or "  it fits")
    if not planned["fits"]:
        raise typer.Exit(1)


def _tell(outcome: Outcome, as_json: bool) -> None:
    training, adapter = outcome.training, outcome.adapter
    if as_json:
        value = {
            "training": json.loads(training.to_bytes()),
            "adapter": json.loads(adapter.to_bytes()) if adapter else None,
        }
        typer.echo(json.dumps(value))
        return
    if adapter is None:
        typer.echo(f"no adapter: {training.reason}", err=True)
        return
    typer.echo(f"{adapter.status} {adapter.name} ({adapter.label})" + (f": {adapter.reason}" if adapter.reason else ""))
    typer.echo(f"  trained on dataset {adapter.dataset}: " + _numbers(adapter.metrics))
    measured = dict(adapter.evaluation)
    matrix, gates = measured.pop("matrix", None), measured.pop("gates", [])
    for name, figures in measured.items():
        typer.echo(f"  {name}: {evaluation.figures(figures)}")
    if matrix is not None:
        evaluation.show(matrix, gates)
    typer.echo(f"  files: {adapter.path}")


def _numbers(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))


COMMANDS: tuple[Callable[..., Any], ...] = (train, evaluation.evaluate)
