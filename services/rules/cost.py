"""What calls cost by the prices in force; what is unknown is None and never 0."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ratchet.schemas.events import Event, Inference, Shadow
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price, cost_usd


class PriceList:
    """The prices in force."""

    def __init__(self, models: Mapping[str, Price], tasks: Mapping[str, TaskPolicy]) -> None:
        """Take the prices.

        Args:
            models: by the name of an adapter or of a base model.
            tasks: the declared tasks, whose own prices are over the models'.
        """
        self._models = models
        self._tasks = {name: policy.price for name, policy in tasks.items() if policy.price}
        self._any = bool(self._models or self._tasks)

    def of(self, task: str, adapter: str, base_model: str) -> Price | None:
        """Find what counts for a call: its task's price, else its adapter's, else its base model's."""
        return self._tasks.get(task) or self._models.get(adapter) or self._models.get(base_model)

    def price(self, event: Event) -> Event:
        """Give an inference or a shadow answer its cost, where it names none and it is known."""
        if not self._any or not isinstance(event, Inference | Shadow) or event.cost_usd is not None:
            return event
        price = self.of(event.task, event.adapter, event.base_model)
        cost = cost_usd(price, event.prompt_tokens, event.completion_tokens)
        return event if cost is None else event.model_copy(update={"cost_usd": cost})


class Spent(NamedTuple):
    """What one adapter, candidate or judge cost a task."""

    task: str
    use: str
    """``production``, ``shadow`` (copies for a candidate) or ``judge``."""
    name: str
    """The adapter, or the judge's model."""
    n: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    """Of the calls whose cost is known; None where none is."""
    per_request_usd: float | None
    """The mean over those."""
    unknown: float
    """The share of the calls whose cost is not known."""


def spent(rows: Iterable[Mapping[str, Any]], models: Mapping[str, Price]) -> list[Spent]:
    """Finish the rows of ``cost.sql``: judges' calls whose cost was not stored get today's price, and all their mean.

    Args:
        rows: task, use, name, n, prompt_tokens, completion_tokens, known, cost_usd; of judges also unpriced,
            unpriced_prompt_tokens and unpriced_completion_tokens.
        models: the prices, by model.
    """
    found = []
    for row in rows:
        known, cost = row["known"], row["cost_usd"]
        if row["use"] == "judge":
            tokens = row["unpriced_prompt_tokens"], row["unpriced_completion_tokens"]
            if (more := cost_usd(models.get(row["name"]), *tokens)) is not None:
                known, cost = known + row["unpriced"], (cost or 0.0) + more
        mean = cost / known if known else None
        names = ("task", "use", "name", "n", "prompt_tokens", "completion_tokens")
        shown = {name: row[name] for name in names}
        found.append(Spent(**shown, cost_usd=cost, per_request_usd=mean, unknown=1 - known / row["n"]))
    return found
