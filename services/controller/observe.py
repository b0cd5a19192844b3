"""What a rollout has shown so far: questions to ClickHouse, answers as the gates take them.

A question is asked once for both arms and every stage that counts, since the controller looks every few seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ratchet.consumers.calibration import Questions
from ratchet.schemas.ids import unix_ms
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import USERS_ALONE, Metric, Stage
from ratchet.schemas.rows import instant
from ratchet.services.controller.observed import Window, compared, paired, unpaired
from ratchet.services.rules.rollouts.deciding import gates_of, stage_of
from ratchet.services.rules.rollouts.evidence import Burst, Paired, Sample, Split, StageEvidence

FULL = 10_000
SETTLED_S = 5.0
"""So long after a stage began its table is taken to be in force at every gateway: users are counted from then on."""
ENDED_S = 150.0
"""Calls that began so long ago have ended (a gateway waits 120 s for an answer) and are known. A slower arm's are known
later: counted up to now its users would always look too few."""


def unobservable(stage: Stage, policy: TaskPolicy, copies_wait: bool) -> frozenset[Metric]:
    """The metrics that a stage cannot show.

    Without users of the candidate there is nobody's word on it; with them nobody compares two answers to one prompt.
    Latency is among them where copies wait behind users' requests: they are slow by that, whatever the adapter.
    """
    if stage.weight_bp > 0:
        return frozenset({"win_rate"})
    hidden: set[Metric] = set(USERS_ALONE)
    if policy.completion == "outcome":
        hidden.add("completion")
    if copies_wait:
        hidden.add("latency_p95")
    return frozenset(hidden)


def observe(
    store: Questions,
    state: Rollout,
    policy: TaskPolicy,
    now: datetime,
    copies_wait: bool = False,
    waiting_for: Sequence[str] = (),
) -> StageEvidence:
    """Gather the evidence of a rollout's present stage, and of those that are carried into it.

    The stable arm is always the concurrent one: same stage, same rollout. In a stage without users of the candidate it
    is the mirrored requests as production answered them. At 100% nobody is left on it, so what earlier stages showed
    is all that there is.

    Args:
        store: ClickHouse.
        state: the routing table in force.
        policy: the task's stages and gates.
        now: the present instant.
        copies_wait: the model servers put mirrored copies behind users' requests.
        waiting_for: gateways that have not acknowledged this table.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    stage = stage_of(policy.rollout, state.stage)
    if stage is None:
        return StageEvidence(waiting_for=tuple(waiting_for))
    hidden = unobservable(stage, policy, copies_wait)
    # no gate is asked before one of several candidates is chosen
    asked = [] if state.arms else [one for one in gates_of(policy.rollout, stage) if one.metric not in hidden]
    present = Window(state.stage_started_at, now + timedelta(seconds=1))
    requests, split, burst = _present(store, state, policy, stage, present, now)
    carried = [Window(span.since, span.until or present.since) for span in state.carried]
    if stage.weight_bp == 0:
        found = {gate.metric: paired(store, state, policy, gate, present, now) for gate in asked}
    else:
        stages = carried if stage.weight_bp == FULL else [*carried, present]
        found = {gate.metric: unpaired(store, state, policy, gate, stages, now) for gate in asked}
    return StageEvidence(
        by_gate=found,
        unobservable=hidden,
        requests=requests[1],
        stable_requests=requests[0],
        split=split,
        burst=burst,
        page=_page(store, state) if policy.rollout.abort_on_page else None,
        waiting_for=tuple(waiting_for),
        arms={name: _difference(store, state, policy, name, present, now) for name in state.arms},
    )


def _difference(
    store: Questions, state: Rollout, policy: TaskPolicy, candidate: str, present: Window, now: datetime
) -> Sample | None:
    """How one of several candidates differs from stable on the requests that were copied to it."""
    evidence = compared(store, state, policy, policy.rollout.best_arm.metric, candidate, present, now)
    if evidence is None or not evidence.trusted:
        return None  # an uncalibrated judge chooses nobody
    return next((one.difference for one in evidence.strata if isinstance(one, Paired)), None)


def _present(
    store: Questions, state: Rollout, policy: TaskPolicy, stage: Stage, present: Window, now: datetime
) -> tuple[tuple[int, int], Split | None, Burst]:
    """Stable's and the candidate's calls in this stage, how users were split in it, and the last seconds' failures."""
    burst_since = max(present.since, now - timedelta(seconds=policy.rollout.burst.window_s))
    rows = store.query(
        "rollout_arms",
        task=state.task,
        rollout_id=state.rollout_id,
        candidate=state.candidate or "",
        since=instant(present.since),
        until=instant(present.until),
        settled=instant(present.since + timedelta(seconds=SETTLED_S)),
        ended=instant(now - timedelta(seconds=ENDED_S)),
        recently=instant(burst_since),
    )
    nothing = dict.fromkeys(("calls", "keys", "recent_calls", "recent_failures"), 0)
    stable, candidate = (
        next((row for row in rows if bool(row["candidate"]) is wanted), nothing) for wanted in (False, True)
    )
    burst = Burst(
        stable["recent_calls"], stable["recent_failures"], candidate["recent_calls"], candidate["recent_failures"]
    )
    both = 0 < stage.weight_bp < FULL
    split = Split(stable["keys"], candidate["keys"], stage.weight_bp) if both else None
    return (stable["calls"], candidate["calls"]), split, burst


def _page(store: Questions, state: Rollout) -> str | None:
    began = datetime.fromtimestamp(unix_ms(state.rollout_id) / 1000, UTC)
    found = store.query("rollout_page", task=state.task, candidate=state.candidate or "", began=instant(began))
    return f"critical alert {found[0]['alert']} about {state.candidate}: {found[0]['title']}" if found else None
