"""Between our datasets and a provider's fine-tuning API: its lines, its method, and what its events tell. Pure.

The formats are OpenAI's, as its guides to supervised fine-tuning and to direct preference optimization give them:
https://developers.openai.com/api/docs/guides/supervised-fine-tuning, …/direct-preference-optimization.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_pool import ManagedRecipe

METHODS = ("sft", "dpo")
MIN_EXAMPLES = 10
"""A provider refuses fewer, after the upload."""


def lines(method: str, rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write rows as the provider's JSONL.

    Args:
        method: ``dpo`` reads ``prompt, chosen, rejected``; ``sft`` reads ``prompt, completion``, or the better
            answer of a preference row.
        rows: of a dataset.

    Raises:
        TrainingError: another method, or a row without what its method reads.
    """
    if method not in METHODS:
        raise TrainingError(f"method {method!r}: a provider trains by {' and '.join(METHODS)}")
    write = _preference if method == "dpo" else _supervised
    written = []
    for number, row in enumerate(rows, start=1):
        try:
            written.append(orjson.dumps(write(row)))
        except (KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"row {number} of the dataset is none for {method}: {error!r}") from None
    return b"".join(line + b"\n" for line in written)


def _preference(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "input": {"messages": _messages(row["prompt"])},
        "preferred_output": [_answer(row["chosen"])],
        "non_preferred_output": [_answer(row["rejected"])],
    }


def _supervised(row: Mapping[str, Any]) -> dict[str, Any]:
    answer = row["completion"] if "completion" in row else row["chosen"]
    return {"messages": [*_messages(row["prompt"]), _answer(answer)]}


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _answer(messages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"role": "assistant", "content": messages[0]["content"]}


def method_of(method: str, recipe: ManagedRecipe) -> dict[str, Any]:
    """The ``method`` of a job: what is left to the provider is left out."""
    chosen = recipe.model_dump(exclude={"suffix"}, exclude_none=True)
    if method == "sft":
        chosen.pop("beta", None)
    kind = "supervised" if method == "sft" else "dpo"
    return {"type": kind, kind: {"hyperparameters": chosen}}


def progress(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """A progress line of a provider's event; None for one that carries no step.

    Args:
        event: of the fine-tuning job: ``data`` of a ``metrics`` event has ``step``, ``total_steps``, ``train_loss``, ….
    """
    data = event.get("data")
    if event.get("type") != "metrics" or not isinstance(data, Mapping) or not isinstance(data.get("step"), int):
        return None
    line: dict[str, Any] = {"step": data["step"], "steps": int(data.get("total_steps") or data["step"])}
    names = {
        "train_loss": "loss",
        "valid_loss": "eval_loss",
        "full_valid_loss": "eval_loss",
        "train_mean_token_accuracy": "token_accuracy",
        "train_accuracy": "reward_accuracy",
        "valid_accuracy": "eval_accuracy",
    }
    for theirs, ours in names.items():
        if isinstance(value := data.get(theirs), int | float):
            line[ours] = float(value)
    return line


def cost_usd(trained_tokens: int | None, usd_per_million: float | None) -> float | None:
    """What a job cost, in US dollars; None where the tokens or their price are not known."""
    if trained_tokens is None or usd_per_million is None:
        return None
    return trained_tokens * usd_per_million / 1_000_000
