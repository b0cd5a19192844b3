"""What a task's owner decides: checks, judging, pairing, retraining, and the rollout's gates.

Every number here is a default that `ratchet.toml` can change under ``[tasks.<name>]``.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ratchet.schemas.calibration_policy import CalibrationPolicy
from ratchet.schemas.checks import Check
from ratchet.schemas.dataset_policy import DatasetPolicy
from ratchet.schemas.drift_policy import DriftPolicy
from ratchet.schemas.edge_policy import EdgePolicy
from ratchet.schemas.evaluation_policy import EvaluationPolicy, spelled_out
from ratchet.schemas.events import Closed
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.pairwise_policy import PairwisePolicy
from ratchet.schemas.pricing import Price
from ratchet.schemas.retraining_policy import RetrainingPolicy
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.schemas.training_policy import TrainingPolicy

Rate = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


RedactionKind = Literal["secret", "email", "iban", "card", "phone"]
# Everything that a pattern which matches nothing would match in; and (x+)+ written out.
_SAMPLES = ("", "aA0 _-.,:/@\n'\"#", " ")
_NESTED_REPEAT = re.compile(r"(?<![\\+*?}])[+*]\)(?:[+*]|\{\d+,)")


def _usable(pattern: str) -> str:
    """Refuse a pattern that is no regular expression, finds nothing, or may take for ever."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}; allowed: Python's re syntax") from None
    if any(not match[0] for sample in _SAMPLES for match in compiled.finditer(sample)):
        raise ValueError("matches the empty text; allowed: patterns that take at least one character")
    if _NESTED_REPEAT.search(pattern):
        raise ValueError("a repeat inside a repeat can take for ever; allowed: make the inner one possessive, (x++)+")
    return pattern


class RedactionPolicy(Closed):
    """What is taken out of this task's events before Kafka: all built-in kinds, unless this says otherwise.

    The app's own request and answer are never changed.
    """

    kinds: list[RedactionKind] = Field(default_factory=lambda: list(get_args(RedactionKind)))
    """``[]`` takes none of them out (``patterns`` still count)."""
    patterns: dict[
        Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], Annotated[str, AfterValidator(_usable)]
    ] = Field(default_factory=dict)
    """More to take out, by a name of your own: whatever the regular expression matches."""
    keep: list[str] = Field(default_factory=list)
    """Values that are no secret and no person's, in any spelling: the desk's own address and number."""

    @field_validator("patterns")
    @classmethod
    def _names_are_new(cls, patterns: dict[str, str]) -> dict[str, str]:
        if taken := sorted(patterns.keys() & set(get_args(RedactionKind))):
            raise ValueError(f"{', '.join(taken)}: a built-in kind; allowed: a name of your own")
        return patterns


FOREVER = "forever"
Keep = Annotated[str, Field(pattern=r"^(?:[1-9][0-9]{0,4}[hd]|forever)$", examples=["90d", "12h", FOREVER])]


class Retention(Closed):
    """How long ClickHouse keeps the rows of each kind, counted from their event's time: ``90d``, ``12h``, ``forever``.

    Unset is for ever; under a task, unset is what ``[retention]`` says. Hourly rollups, the audit log
    of rollouts, adapters and datasets are always kept.
    """

    inferences: Keep | None = None
    shadows: Keep | None = None
    feedback: Keep | None = None
    scores: Keep | None = None
    training: Keep | None = None
    pairs: Keep | None = None


class TaskPolicy(Closed):
    """Everything one task declares in ``ratchet.toml``."""

    system_prompt: str | None = None
    completion: str = "outcome"
    """What counts as a completed task: ``outcome`` (an outcome event) or a check's name."""
    evaluation: Annotated[EvaluationPolicy, BeforeValidator(spelled_out)] = Field(default_factory=EvaluationPolicy)
    """What a trained adapter is measured on and must show; a text is the file of held-out prompts alone."""
    max_tokens: AtLeastOne = 256
    """The longest answer that evaluation asks for; the app's own requests say theirs."""
    price: Price | None = None
    """Of this task's calls, over ``[prices]``: for a task with hardware or a contract of its own."""
    checks: list[Check] = Field(default_factory=list)
    judge: JudgePolicy = Field(default_factory=JudgePolicy)
    calibration: CalibrationPolicy = Field(default_factory=CalibrationPolicy)
    pairwise: PairwisePolicy = Field(default_factory=PairwisePolicy)
    pairing: PairingPolicy = Field(default_factory=PairingPolicy)
    dataset: DatasetPolicy = Field(default_factory=DatasetPolicy)
    redaction: RedactionPolicy = Field(default_factory=RedactionPolicy)
    retention: Retention = Field(default_factory=Retention)
    drift: DriftPolicy = Field(default_factory=DriftPolicy)
    retraining: RetrainingPolicy = Field(default_factory=RetrainingPolicy)
    training: TrainingPolicy = Field(default_factory=TrainingPolicy)
    rollout: RolloutPolicy = Field(default_factory=RolloutPolicy)
    edge: EdgePolicy = Field(default_factory=EdgePolicy)

    @model_validator(mode="after")
    def _completion_is_known(self) -> TaskPolicy:
        names = [check.name for check in self.checks]
        if len(set(names)) != len(names):
            raise ValueError(f"checks {names}: names repeat; allowed: each name once")
        if self.completion != "outcome" and self.completion not in names:
            raise ValueError(f"completion {self.completion!r}; allowed: 'outcome' or a check's name {names}")
        if self.completion == "outcome" and "completion" in self.evaluation.measured:
            raise ValueError(
                "evaluation: completion is measured, and held-out prompts have no outcome events; allowed: a check's"
                " name as the task's completion"
            )
        return self
