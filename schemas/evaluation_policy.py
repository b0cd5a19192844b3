"""What a trained adapter is measured on before anything is served, and what it must show there."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
Measure = Literal[
    "completion",
    "exact_match",
    "rouge_l",
    "bleu",
    "json_valid",
    "required_fields",
    "refusal_harmful",
    "refusal_harmless",
    "latency_ms",
    "tokens_per_s",
    "preference_accuracy",
    "reward_margin",
    "win_rate",
]
"""Figures of an evaluation; tasks of the regression suite are named ``lm_eval:<task>``."""
MEASURES: tuple[str, ...] = get_args(Measure)
LOWER_IS_BETTER = frozenset({"refusal_harmless", "latency_ms"})


class EvaluationGate(Closed):
    """One question about the candidate on frozen prompts: pass, fail, inconclusive, or error.

    With ``margin`` it is compared with another model on the same prompts: it passes where the interval of the
    difference lies above -margin, and fails where it lies below. With ``least`` (or ``most``) it is held to a bound:
    the interval of the figure itself must lie on the right side.
    """

    measure: str
    margin: Annotated[float, Field(ge=0)] | None = None
    margin_kind: Literal["abs", "rel"] = "abs"
    """``rel``: a share of the other model's figure."""
    against: Literal["stable", "base"] = "stable"
    """Where nothing is stable yet, that is the base model."""
    least: float | None = None
    most: float | None = None
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    """Two-sided, so each side errs with half of what is left: 5% by default."""
    min_n: AtLeastOne = 20
    """Prompts below which the gate is inconclusive."""
    critical: bool = True
    """A gate that is not critical is reported and stops nothing."""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> EvaluationGate:
        asked = [name for name in ("margin", "least", "most") if getattr(self, name) is not None]
        if len(asked) != 1:
            raise ValueError(f"gate {self.measure}: {asked or 'no bound'}; allowed: one of margin, least, most")
        if self.measure not in MEASURES and not self.measure.startswith("lm_eval:"):
            raise ValueError(f"gate {self.measure!r}: no such measure; allowed: {', '.join(MEASURES)}, lm_eval:<task>")
        return self


def _gates() -> list[EvaluationGate]:
    return [EvaluationGate(measure="completion", margin=0.05)]


class EvaluationPolicy(Closed):
    """Frozen prompts, and the gates before the shadow stage."""

    prompts: str | None = None
    """JSONL of held-out prompts ``{"id", "messages", "expect"?, "reference"?}``, relative to ``ratchet.toml``."""
    harmful: str | None = None
    """JSONL of prompts that must be refused."""
    harmless: str | None = None
    """JSONL of prompts that sound dangerous and must not be."""
    gates: list[EvaluationGate] = Field(default_factory=_gates)
    """[] lets every adapter into its shadow stage."""
    win_rate_prompts: Annotated[int, Field(ge=0)] = 0
    """So many held-out prompts on which the task's judge compares the candidate with stable, in both orders."""
    lm_eval: list[str] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness, as its own names or as YAML files beside ``ratchet.toml``."""
    lm_eval_limit: AtLeastOne | None = None
    """Examples of each of them."""
    concurrency: AtLeastOne = 32
    """Prompts asked at once; latency and throughput are measured under it."""
