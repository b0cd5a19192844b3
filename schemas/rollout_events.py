"""Events that decide which adapter serves: gates' verdicts, routing tables, instructions, acknowledgements."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ratchet.schemas.events import Closed, Count, Event, Instant, Share
from ratchet.schemas.ids import AdapterName, EventId, TaskName

Verdict = Literal["pass", "fail", "inconclusive", "error"]


class Arm(Closed):
    """One side of a gate: ``n`` observations, of which the metric's mean is ``value``."""

    n: Count
    value: float | None = None


class GateResult(Closed):
    """One gate's verdict with the figures it saw.

    ``difference`` is candidate minus stable in the metric's own unit; ``low`` and ``high`` bound it.
    """

    gate: str
    verdict: Verdict
    stable: Arm
    candidate: Arm
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float
    progress: Share | None = Field(None, description="of max_n, how many of the candidate's observations were made")
    reason: str


RolloutStatus = Literal["idle", "running", "paused", "promoted", "aborted", "superseded"]
RolloutAction = Literal[
    "start",
    "join",
    "allocate",
    "choose",
    "prove",
    "advance",
    "promote",
    "abort",
    "pause",
    "resume",
    "supersede",
    "undo",
    "confirm",
    "seed",
    "refuse",
]


class Span(Closed):
    """One stage of a rollout that both arms' users went through: from when, until before when (None: still)."""

    stage: str
    weight_bp: Annotated[int, Field(ge=0, le=10_000)]
    since: Instant
    until: Instant | None = None


class Rollout(Event):
    """``rollout.v1``: a task's routing table and why it is so (compacted, keyed by task).

    The gateway serves ``candidate`` to ``weight_bp`` of 10,000 sticky keys and ``stable`` to the
    rest; it mirrors ``mirror_bp`` of 10,000 requests to ``candidate``. ``version`` only grows.
    """

    schema_: Literal["rollout.v1"] = Field("rollout.v1", alias="schema")
    task: TaskName
    rollout_id: EventId
    version: Annotated[int, Field(ge=1)]
    status: RolloutStatus
    stage: str = Field(description="the policy's stage name, e.g. 'shadow' or '20%'; '' when idle")
    stage_started_at: Instant
    stable: AdapterName
    candidate: AdapterName | None = None
    previous: AdapterName | None = None
    weight_bp: Annotated[int, Field(ge=0, le=10_000)] = 0
    mirror_bp: Annotated[int, Field(ge=0, le=10_000)] = 0
    salt: str = ""
    action: RolloutAction
    actor: str = Field("controller", description="'controller' or the person who asked")
    reason: str = ""
    gates: list[GateResult] = Field(default_factory=list)
    proved: list[str] = Field(default_factory=list, description="gates that passed: a sequential test ends there")
    carried: list[Span] = Field(default_factory=list, description="earlier stages whose evidence counts in this one")
    arms: dict[AdapterName, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default_factory=dict, description="while several candidates are compared: each one's share of the copies"
    )
    passed_over: list[AdapterName] = Field(
        default_factory=list, description="candidates that were compared with the chosen one, and do not come back"
    )
    blocked: list[str] = Field(
        default_factory=list, description="dataset versions whose adapter was aborted: none starts without a person"
    )
    paused_by: str | None = Field(None, description="'controller' or the person, while it is paused")
    epoch: Annotated[int, Field(ge=0)] = Field(0, description="of the controller that wrote it; a later one fences")
    operator_seen: EventId | None = Field(None, description="the last operator.v1 that was applied")


class Operator(Event):
    """``operator.v1``: a person's instruction to the rollout controller, on the rollout topic.

    Keyed ``<task>/operator``, so compaction keeps the last one of a task.
    """

    schema_: Literal["operator.v1"] = Field("operator.v1", alias="schema")
    task: TaskName
    verb: Literal["start", "retry", "promote", "pause", "resume", "abort", "undo"]
    adapter: AdapterName | None = Field(None, description="what to start, or what to go back to")
    full: bool = False
    who: Annotated[str, Field(min_length=1, max_length=256)]
    why: str = ""


class Gateway(Event):
    """``gateway.v1``: what one gateway routes by, said when a table takes effect and every few seconds.

    So the controller knows who has acknowledged which version of a routing table, and who is out of reach.
    """

    schema_: Literal["gateway.v1"] = Field("gateway.v1", alias="schema")
    gateway: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")] = Field(
        description="the process: host, port and a number of its own; an edge of one's own: edge:<task>:<host>:<name>"
    )
    state: Literal["up", "left"] = "up"
    tables: dict[TaskName, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, description="by task the version of the routing table in force"
    )
    since: dict[TaskName, Instant] = Field(default_factory=dict, description="when that version took effect here")
    in_flight: dict[AdapterName, Count] = Field(default_factory=dict, description="requests at model servers now")
    last_request: dict[AdapterName, Instant] = Field(
        default_factory=dict,
        description="when a table last sent a request or a copy to each adapter; requests that name theirs apart",
    )

    def serves(self, task: str) -> bool:
        """Whether a task's tables are its affair: a gateway has every task, an edge of one's own the one it names."""
        kind, *named = self.gateway.split(":")
        return kind != "edge" or len(named) != 3 or named[0] == task
