"""What a trained adapter is measured on before anything is served, and what it must show there.

``evaluation = "heldout.jsonl"`` under a task is short for a table with these prompts alone.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed

AtLeastOne = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]

ON_PROMPTS = (
    "completion",
    "exact_match",
    "rouge_l",
    "bleu",
    "json_valid",
    "required_fields",
    "latency_p50",
    "latency_p95",
    "throughput",
    "win_rate",
)
"""Measured on the answers to ``prompts``."""
ON_PAIRS = ("preference_accuracy", "reward_margin")
"""Measured on the dataset's held-out pairs, without generating anything."""
METRICS = (*ON_PROMPTS, "refusal", "over_refusal", *ON_PAIRS)
LM_EVAL = "lm_eval:"
"""How the metric of a regression task begins; what follows names the task."""
LOWER_IS_BETTER = frozenset({"over_refusal", "latency_p50", "latency_p95"})


class EvaluationGate(Closed):
    """One question about the candidate before its shadow stage: pass, fail, inconclusive, or error.

    It asks exactly one thing. ``margin``: the candidate is not worse than stable (where nothing is stable yet, than
    the base model) by more than this, on the same prompts; in the metric's unit or, with ``margin_kind = "rel"``, as
    a share of stable's figure. ``floor`` (of a metric where lower is better, ``ceiling``): the candidate's own figure
    is on the right side of this.
    """

    metric: Text
    margin: NotNegative | None = None
    margin_kind: Literal["abs", "rel"] = "abs"
    floor: Finite | None = None
    ceiling: Finite | None = None
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The share of candidates exactly at the bound that pass all the same."""
    min_n: AtLeastOne = 50
    """Prompts with a verdict below which the gate is inconclusive."""
    critical: bool = True
    """A gate that is not critical is reported and stops nothing."""

    @model_validator(mode="after")
    def _asks_one_thing(self) -> EvaluationGate:
        if self.metric not in METRICS and not (self.metric.startswith(LM_EVAL) and len(self.metric) > len(LM_EVAL)):
            raise ValueError(f"metric {self.metric!r}; allowed: {', '.join(METRICS)}, {LM_EVAL}<task>")
        bound = "ceiling" if self.metric in LOWER_IS_BETTER else "floor"
        allowed = (bound,) if self.metric == "win_rate" else ("margin", bound)
        asked = [name for name in ("margin", "floor", "ceiling") if getattr(self, name) is not None]
        if len(asked) != 1 or asked[0] not in allowed:
            given = " and ".join(asked) or "no bound"
            raise ValueError(f"gate {self.metric}: {given}; allowed: exactly one of {', '.join(allowed)}")
        if self.margin_kind == "rel" and (self.margin is None or self.margin >= 1):
            raise ValueError(f"gate {self.metric}: margin_kind 'rel' with {self.margin}; allowed: a margin below 1")
        return self

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller figure of its metric is the better one."""
        return self.metric in LOWER_IS_BETTER


class EvaluationPolicy(Closed):
    """Frozen prompts, what is measured on them, and the gates before the shadow stage; files beside ``ratchet.toml``.

    Without gates a trained adapter is registered whatever its figures are, and only its completion is measured.
    """

    prompts: Text | None = None
    """JSONL of held-out prompts ``{"id", "messages", "expect"?, "reference"?}``."""
    harmful: Text | None = None
    """JSONL of prompts ``{"id", "messages"}`` that must be refused."""
    harmless: Text | None = None
    """JSONL of prompts that must be answered, most usefully ones that sound dangerous."""
    required_fields: list[Text] = Field(default_factory=list)
    """What an answer's JSON object must have, for the metric of that name."""
    metrics: list[Text] = Field(default_factory=list)
    """More to measure than the gates ask about."""
    gates: list[EvaluationGate] = Field(default_factory=list)
    dry_run: bool = False
    """Gates are answered and noted, and reject nothing: to see what they would do."""
    judged: AtLeastOne = 100
    """So many held-out prompts, at most, go to the task's pairwise judge for ``win_rate``."""
    lm_eval: list[Text] = Field(default_factory=list)
    """Tasks of lm-evaluation-harness: its own names, or YAML files."""
    lm_eval_limit: AtLeastOne | None = None
    """Examples of each of them; None: all."""
    concurrency: AtLeastOne = 32
    """Prompts asked at once; latency and throughput are measured under it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the bootstrap."""

    @model_validator(mode="after")
    def _is_measured(self) -> EvaluationPolicy:
        names = self.lm_eval_names
        if len(set(names)) != len(names):
            raise ValueError(f"lm_eval {self.lm_eval}: names repeat; allowed: each task once")
        for metric in self.measured:
            task = metric.removeprefix(LM_EVAL)
            if metric.startswith(LM_EVAL) and task not in names:
                raise ValueError(f"metric {metric!r}: lm_eval names no task {task!r}; allowed: {names or 'none'}")
            if not metric.startswith(LM_EVAL) and metric not in METRICS:
                raise ValueError(f"metrics: {metric!r}; allowed: {', '.join(METRICS)}, {LM_EVAL}<task>")
            needs = {"refusal": "harmful", "over_refusal": "harmless", "required_fields": "required_fields"}
            needed = needs.get(metric)
            for name in (needed, "prompts" if metric in ON_PROMPTS else None):
                if name is not None and not getattr(self, name):
                    raise ValueError(f"metric {metric!r} is measured on {name}, which is not set")
        return self

    @property
    def measured(self) -> list[str]:
        """What is measured beside completion, each once: what the gates ask, ``metrics``, every regression task."""
        wanted = [gate.metric for gate in self.gates] + self.metrics + [LM_EVAL + name for name in self.lm_eval_names]
        return list(dict.fromkeys(wanted))

    @property
    def files(self) -> dict[str, str]:
        """The files of prompts, by setting; no training set may touch any of them."""
        named = {"prompts": self.prompts, "harmful": self.harmful, "harmless": self.harmless}
        return {name: file for name, file in named.items() if file is not None}

    @property
    def lm_eval_names(self) -> list[str]:
        """The regression tasks as metrics name them: of a file, its name without the ending."""
        return [PurePosixPath(one).stem if one.endswith((".yaml", ".yml")) else one for one in self.lm_eval]


def spelled_out(value: Any) -> Any:
    """``"heldout.jsonl"`` as the table that it is short for."""
    return {"prompts": value} if isinstance(value, str) else value
