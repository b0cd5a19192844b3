"""Every event that crosses Kafka: frozen, closed to unknown fields, versioned by ``schema``.

JSON on the wire. ``schema`` names the version (``inference.v1``); times are RFC 3339 in UTC;
ids are UUIDv7. `decoding.parse` makes events of bytes. Here are the shapes that all share and the data of the loop;
`rollout_events` has what decides who serves, `monitoring_events` what a person should look at.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from ratchet.schemas.feedback import feedback_problem
from ratchet.schemas.ids import AdapterName, EventId, TaskName

Instant = Annotated[AwareDatetime, Field(description="RFC 3339 with a zone; Ratchet itself writes UTC")]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Text64 = Annotated[str, Field(max_length=256)]
Source = Literal["gateway", "http", "kafka", "otlp", "import"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
"""Of a file in an adapter's folder: no path, so that nothing is written beside it."""
ServingStage = Literal["stable", "canary", "fallback", "pinned"]
Tags = dict[Annotated[str, Field(max_length=128)], Annotated[str, Field(max_length=1024)]]


class Closed(BaseModel):
    """A frozen value without unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True, allow_inf_nan=False
    )


class Event(Closed):
    """What every event has: an id that makes it idempotent and the instant it is about."""

    id: EventId
    at: Instant

    def to_bytes(self) -> bytes:
        """The event as Kafka carries it: JSON without absent fields."""
        return self.model_dump_json(by_alias=True, exclude_none=True).encode()


class Request(Closed):
    """What the app asked: chat ``messages`` or a ``prompt``, as OpenAI's API has them."""

    messages: list[dict[str, Any]] | None = None
    prompt: str | list[str] | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Request:
        if (self.messages is None) == (self.prompt is None):
            raise ValueError("a request has exactly one of messages, prompt")
        return self


class Response(Closed):
    """What the model answered: the first choice, and where more were asked for (``n``) the others beside it."""

    content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    further_choices: list[dict[str, Any]] | None = Field(
        None, description="the other choices where n is above 1, each {content?, tool_calls?, finish_reason?}"
    )


class _Call(Event):
    """One call of a model: shared by production and shadow traffic."""

    task: TaskName
    tenant: Text64 = "default"
    conversation_id: Text64 | None = None
    user: Text64 | None = Field(None, description="a hash of the end user, never the name")
    adapter: AdapterName
    base_model: Text64
    request: Request
    response: Response | None = None
    status: Literal["ok", "error", "timeout", "cancelled"]
    error: str | None = None
    latency_ms: Annotated[float, Field(ge=0)]
    ttft_ms: Annotated[float, Field(ge=0)] | None = None
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cost_usd: Annotated[float, Field(ge=0)] | None = None
    stream: bool = False
    source: Source
    tags: Tags = Field(default_factory=dict)


class Inference(_Call):
    """``inference.v1``: one production request; ``at`` is when the gateway routed it."""

    schema_: Literal["inference.v1"] = Field("inference.v1", alias="schema")
    stage: ServingStage
    rollout_id: EventId | None = None


class Shadow(_Call):
    """``shadow.v1``: the candidate's answer to a copy of a production request; no user sees it."""

    schema_: Literal["shadow.v1"] = Field("shadow.v1", alias="schema")
    stage: Literal["shadow"] = "shadow"
    rollout_id: EventId
    inference_id: EventId


class Feedback(Event):
    """``feedback.v1``: what a person or the app says of an inference or a conversation.

    ``value`` by kind: ``thumb`` bool; ``rating`` 0–1; ``comment`` and ``correction`` text;
    ``preference`` ``"this"`` | ``"other"`` | ``"tie"`` between ``inference_id`` and ``compared_with``;
    ``outcome`` bool (did the task complete).
    """

    schema_: Literal["feedback.v1"] = Field("feedback.v1", alias="schema")
    task: TaskName
    tenant: Text64 = "default"
    inference_id: EventId | None = None
    conversation_id: Text64 | None = None
    kind: Literal["thumb", "rating", "comment", "correction", "preference", "outcome"]
    value: bool | float | str
    compared_with: EventId | None = None
    user: Text64 | None = None
    source: Source
    tags: Tags = Field(default_factory=dict)

    @model_validator(mode="after")
    def _value_fits_kind(self) -> Feedback:
        problem = feedback_problem(self.kind, self.value, self.compared_with)
        if problem:
            raise ValueError(problem)
        if self.inference_id is None and self.conversation_id is None:
            raise ValueError("feedback names neither inference_id nor conversation_id; allowed: at least one")
        return self


class Score(Event):
    """``score.v1``: what a check or a judge says of an inference, a shadow answer or a pair.

    A judge that cannot say abstains: ``verdict="abstain"`` and no ``score``. It is never 0 for an error.
    """

    schema_: Literal["score.v1"] = Field("score.v1", alias="schema")
    task: TaskName
    adapter: AdapterName
    rollout_id: EventId | None = None
    target_id: EventId
    target: Literal["inference", "shadow", "pair", "anchor"] = Field(description="'anchor': a frozen answer")
    kind: Literal["pointwise", "pairwise", "check", "label"] = Field(description="'label': a person's word")
    judge: Text64 = Field(description="the judge's id; 'check' for programmatic checks")
    rubric: Text64 = Field(description="the rubric's or the check's name")
    rubric_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    score: Share | None = None
    distribution: dict[str, Share] | None = None
    verdict: str | None = None
    rationale: str | None = None
    spread: Share | None = Field(
        None, description="standard deviation of the score: by the distribution, of a panel between its judges"
    )
    basis: Literal["probabilities", "samples", "digit", "combined"] | None = Field(
        None, description="token probabilities, repeated samples, one bare digit, or several scores of this answer"
    )
    inclusion_probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cost_usd: Annotated[float, Field(ge=0)] | None = Field(None, description="absent where it is not known")
    cached: bool = Field(False, description="said before of the same content; this time it cost nothing")
    judged_at: Instant | None = Field(None, description="when the judge was asked; at is the answer's time")

    @model_validator(mode="after")
    def _score_or_abstain(self) -> Score:
        if (self.score is None) != (self.verdict == "abstain"):
            raise ValueError("a score has a value from 0 to 1, or verdict 'abstain' and no value")
        return self


TrainingState = Literal["requested", "declined", "started", "progress", "finished", "failed", "cancelled"]


Method = Literal["sft", "dpo", "kto", "reward", "grpo", "rloo"]
"""How an adapter is trained; what ``reward`` makes says how good answers are, and gives none."""


class Training(Event):
    """``training.v1``: a decision to train (or not), and what became of the job."""

    schema_: Literal["training.v1"] = Field("training.v1", alias="schema")
    task: TaskName
    job_id: EventId
    state: TrainingState
    method: Method = "dpo"
    trigger: Literal["pairs", "schedule", "drift", "manual"] = "manual"
    reason: str = ""
    dataset: str | None = None
    adapter: AdapterName | None = None
    step: Count | None = None
    steps: Count | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    alert_id: EventId | None = Field(None, description="the open alert that this decision is about")


class Adapter(Event):
    """``adapter.v1``: the registry's record of one adapter (compacted, keyed by name); the manifest."""

    schema_: Literal["adapter.v1"] = Field("adapter.v1", alias="schema")
    task: TaskName
    name: AdapterName
    label: str
    status: Literal["registered", "rejected", "retired"]
    reason: str = ""
    method: Method
    base_model: Text64
    path: str = Field(description="folder of the PEFT adapter, as every vLLM replica sees it")
    served_as: Text64 = Field("", description="what its server calls it where that is not its name: a provider's model")
    weights_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="without weights: of 'served_as'")]
    files: dict[FileName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default_factory=dict, description="SHA-256 by name of every file that may be loaded; older manifests have none"
    )
    dataset: str
    dataset_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parents: list[str] = Field(default_factory=list)
    job_id: EventId
    params: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    evaluation: dict[str, Any] = Field(default_factory=dict)

    @property
    def answers(self) -> bool:
        """Whether it can be rolled out; a reward model says how good answers are, and gives none."""
        return self.method != "reward"


class DeadLetter(Event):
    """``dead-letter.v1``: a message that is no event, with its bytes (base64) and the reason."""

    schema_: Literal["dead-letter.v1"] = Field("dead-letter.v1", alias="schema")
    topic: str
    partition: int
    offset: int
    key: str | None = None
    reason: str
    value_base64: str
