"""Import maps: records of any JSON log to events, by a small TOML file; pure.

A map says, for every record, which inferences and which feedback it becomes::

    task = "pandalm"
    key = "{idx}"                              # identifies a record; without it, its content does
    [time]                                     # or: time.field = "{created_at}"
    start = 2024-01-01T00:00:00Z
    step_s = 1
    [[inference]]
    name = "first"
    messages = [{ role = "user", content = "{question}" }]
    content = "{answer}"
    [[feedback]]
    inference = "first"                        # the inference of that name
    kind = "thumb"
    value = { from = "{vote}", lookup = { up = true, down = false } }
    when = "{vote}"                            # left out where the field is absent, null, false or ""

The template forms are in `ratchet.services.rules.template`. The same record under the same map
always becomes the same events with the same ids, so importing a file twice adds nothing.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from ratchet.schemas.events import Closed, Feedback, Inference
from ratchet.schemas.explain import explain
from ratchet.schemas.ids import BASE, TaskName, derived_id
from ratchet.schemas.rows import canonical
from ratchet.services.rules.template import Unfilled, fill, form_problem, text

Template = Any
"""A text with placeholders, a lookup, a hash, or a constant (see `template`)."""
TEXTS = ("content", "conversation_id", "user", "adapter", "base_model", "tenant", "error", "finish_reason")


class BadRecord(Exception):
    """A record that the map cannot turn into events; the text is the reason."""


class Times(Closed):
    """When a record happened: ``field`` (RFC 3339, or seconds or milliseconds since 1970), or ``start`` and ``step_s``.

    With ``start``, record number i of the file happened at ``start + i × step_s`` seconds.
    """

    field: Template = None
    start: datetime | None = None
    step_s: Annotated[float, Field(ge=0)] = 1.0

    @model_validator(mode="after")
    def _one_of(self) -> Times:
        if (self.field is None) == (self.start is None):
            raise ValueError("time has exactly one of 'field' and 'start'")
        if self.start is not None and self.start.tzinfo is None:
            raise ValueError("time.start has no zone; allowed: e.g. 2024-01-01T00:00:00Z")
        return self


class _Output(Closed):
    """What inferences and feedback share; every value is a template."""

    when: Template = None
    conversation_id: Template = None
    user: Template = None
    tenant: Template = "default"
    tags: dict[str, Template] = Field(default_factory=dict)
    delay_s: Annotated[float, Field(ge=0)] = 0.0


class InferenceMap(_Output):
    """One inference a record: what was asked (``messages`` or ``prompt``) and what was answered (``content``)."""

    name: str
    messages: Template = None
    prompt: Template = None
    params: dict[str, Template] = Field(default_factory=dict)
    tools: Template = None
    content: Template = None
    tool_calls: Template = None
    finish_reason: Template = None
    adapter: Template = BASE
    base_model: Template = "unknown"
    status: Template = "ok"
    error: Template = None
    stage: Template = "stable"
    latency_ms: Template = 0.0
    ttft_ms: Template = None
    prompt_tokens: Template = 0
    completion_tokens: Template = 0
    cost_usd: Template = None


class FeedbackMap(_Output):
    """One feedback a record, on the inference named ``inference`` or on a conversation."""

    name: str | None = None
    inference: str | None = None
    compared_with: str | None = None
    kind: Template
    value: Template


class Map(Closed):
    """A whole map file."""

    task: TaskName
    records: str | None = None
    """Dotted path to the list of records inside a JSON document; None: the document is the list."""
    key: Template = None
    time: Times
    inference: list[InferenceMap] = Field(default_factory=list)
    feedback: list[FeedbackMap] = Field(default_factory=list)

    @field_validator("inference", "feedback", mode="after")
    @classmethod
    def _templates_are_well_formed(cls, outputs: list[_Output]) -> list[_Output]:
        for output in outputs:
            for name in type(output).model_fields:
                problem = form_problem(getattr(output, name))
                if problem:
                    raise ValueError(f"{name}: {problem}")
        return outputs

    @model_validator(mode="after")
    def _names_are_known(self) -> Map:
        problem = form_problem(self.key) or form_problem(self.time.field)
        if problem:
            raise ValueError(problem)
        names = [one.name for one in self.inference]
        if len(set(names)) != len(names):
            raise ValueError(f"inference names {names} repeat; allowed: each name once")
        if not names and not self.feedback:
            raise ValueError("the map makes no event; allowed: at least one [[inference]] or [[feedback]]")
        for one in self.feedback:
            for name in (one.inference, one.compared_with):
                if name is not None and name not in names:
                    raise ValueError(f"feedback names inference {name!r}; allowed: {names}")
        return self


def map_record(mapping: Map, record: Any, index: int) -> list[Inference | Feedback]:
    """Turn record number ``index`` of a file into its events, inferences first.

    Raises:
        BadRecord: a field is missing, a lookup does not know a value, or an event does not fit its schema.
    """
    if not isinstance(record, dict):
        raise BadRecord(f"a record is a JSON object, this is {type(record).__name__}")
    try:
        at = _time(mapping.time, record, index)
        own = hashlib.sha256(canonical(record).encode()).hexdigest()
        key = own if mapping.key is None else text(fill(mapping.key, record))
        ids: dict[str, str] = {}
        events: list[Inference | Feedback] = []
        for one in mapping.inference:
            if _wanted(one, record):
                moment = at + timedelta(seconds=one.delay_s)
                ids[one.name] = _id(moment, mapping.task, key, f"inference/{one.name}")
                events.append(_inference(mapping, one, record, ids[one.name], moment))
        for number, said in enumerate(mapping.feedback):
            if _wanted(said, record):
                moment = at + timedelta(seconds=said.delay_s)
                made = _id(moment, mapping.task, key, f"feedback/{said.name or number}")
                events.append(_feedback(mapping, said, record, made, moment, ids))
    except Unfilled as error:
        raise BadRecord(str(error)) from None
    except ValidationError as error:
        raise BadRecord(f"{error.title}: {explain(error)}") from None
    except (OverflowError, TypeError, ValueError) as error:
        # orjson refuses what JSON cannot hold, e.g. integers over 64 bits
        raise BadRecord(f"{type(error).__name__}: {error}") from None
    return events


def _id(at: datetime, task: str, key: str, name: str) -> str:
    return derived_id(int(at.timestamp() * 1000), "import", task, key, name)


def _time(times: Times, record: Any, index: int) -> datetime:
    if times.start is not None:
        return times.start.astimezone(UTC) + timedelta(seconds=index * times.step_s)
    value = fill(times.field, record)
    if isinstance(value, int | float) and not isinstance(value, bool):
        # 10^11 seconds is the year 5138, 10^11 milliseconds is 1973
        seconds = value / 1000 if value > 1e11 else float(value)
        if not 0 <= seconds < 1e11:
            raise Unfilled(f"time {value!r}; allowed: seconds or milliseconds since 1970")
        return datetime.fromtimestamp(seconds, UTC)
    try:
        moment = datetime.fromisoformat(text(value))
    except ValueError:
        raise Unfilled(f"time {value!r}; allowed: RFC 3339, or seconds or milliseconds since 1970") from None
    if moment.timestamp() < 0:
        raise Unfilled(f"time {value!r} is before 1970")
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _wanted(output: _Output, record: Any) -> bool:
    if output.when is None:
        return True
    try:
        value = fill(output.when, record)
    except Unfilled:
        return False
    return value is not None and value is not False and value != ""


def _common(output: _Output, mapping: Map, record: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        name: fill(template, record)
        for name in type(output).model_fields
        if name not in ("name", "when", "delay_s", "tags", "inference", "compared_with")
        and (template := getattr(output, name)) is not None
    }
    values = {name: text(value) if name in TEXTS else value for name, value in values.items() if value is not None}
    tags = {name: fill(template, record) for name, template in output.tags.items()}
    values["tags"] = {name: text(value) for name, value in tags.items() if value is not None}
    return values | {"task": mapping.task, "source": "import"}


def _inference(mapping: Map, one: InferenceMap, record: Any, made: str, at: datetime) -> Inference:
    values = _common(one, mapping, record)
    request = {name: values.pop(name) for name in ("messages", "prompt", "params", "tools") if name in values}
    response = {name: values.pop(name) for name in ("content", "tool_calls", "finish_reason") if name in values}
    return Inference.model_validate(
        values | {"id": made, "at": at, "request": request} | ({"response": response} if response else {})
    )


def _feedback(mapping: Map, said: FeedbackMap, record: Any, made: str, at: datetime, ids: dict[str, str]) -> Feedback:
    values = _common(said, mapping, record)
    for name, target in (("inference_id", said.inference), ("compared_with", said.compared_with)):
        if target is not None:
            if target not in ids:
                raise BadRecord(f"feedback on inference {target!r}, which this record does not have")
            values[name] = ids[target]
    return Feedback.model_validate(values | {"id": made, "at": at})
