"""The rollout's state machine: what promotes, what aborts, and that nobody is overridden."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.gates import Means, Sample
from ratchet.services.rules.instructions import follow
from ratchet.services.rules.rollout import (
    StageEvidence,
    abort,
    apply,
    begin,
    decide,
    gates_of,
    next_candidate,
    pause,
    promote,
    refuse,
    resume,
    stage_of,
    supersede,
    undo,
)

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
V1, V2, V3 = "support@v1-11111111", "support@v2-22222222", "support@v3-33333333"
POLICY = RolloutPolicy(
    stages=[
        Stage(name="shadow", mirror_bp=1_000, min_duration_s=60, max_wait_s=600),
        Stage(name="20%", weight_bp=2_000, min_duration_s=60, max_wait_s=600, on_timeout="abort"),
        Stage(name="100%", weight_bp=10_000, min_duration_s=60, max_wait_s=600),
    ],
    gates=[
        Gate(metric="completion", margin=0.02),
        Gate(metric="error_rate", margin=0.01),
        Gate(metric="satisfaction", margin=0.05, critical=False),
    ],
)


def event_id(at: datetime, *parts: str) -> str:
    """A UUIDv7 of this instant."""
    return derived_id(int(at.timestamp() * 1000), *parts)


def begun(state: Rollout | None = None, candidate: str = V2, at: datetime = START) -> Rollout:
    """A rollout in its first stage."""
    return begin("support", candidate, POLICY, state, at, event_id(at, "e"), event_id(at, "r"))


def evidence(state: Rollout, completed: int | None, errors: int | None, n: int = 20_000) -> StageEvidence:
    """Both arms with n calls; the stable one completes 90% and fails 1%."""
    old = {"completion": n * 9 // 10, "error_rate": n // 100, "satisfaction": 0}
    new = {"completion": completed, "error_rate": errors, "satisfaction": None}
    stage = stage_of(POLICY, state.stage)
    assert stage is not None
    seen = {
        gate: Means(
            Sample.proportion(n, old[gate.metric]),
            None if (k := new[gate.metric]) is None else Sample.proportion(n, k),
        )
        for gate in gates_of(POLICY, stage)
    }
    return StageEvidence(seen)


def later(seconds: float) -> datetime:
    """An instant after the start."""
    return START + timedelta(seconds=seconds)


def test_a_healthy_candidate_goes_through_every_stage_and_is_promoted() -> None:
    """Advance, advance, promote: weights by the policy, one salt, and the old stable kept as previous."""
    state, seen = begun(), []
    for step in range(3):
        now = later(100 * (step + 1))
        state = apply(state, decide(state, evidence(state, 18_100, 190), POLICY, now), POLICY, now, event_id(now))
        seen.append((state.action, state.stage, state.weight_bp, state.mirror_bp, state.salt))
    salt = begun().salt
    assert seen == [
        ("advance", "20%", 2_000, 0, salt),
        ("advance", "100%", 10_000, 0, salt),
        ("promote", "100%", 0, 0, salt),
    ]
    assert (state.status, state.stable, state.previous) == ("promoted", V2, "base")
    assert [gate.verdict for gate in state.gates] == ["pass", "pass", "inconclusive"]


def test_gates_that_pass_wait_for_the_minimum_duration() -> None:
    """Passing early is not enough: daily patterns need the stage's whole duration."""
    decision = decide(begun(), evidence(begun(), 18_100, 190), POLICY, later(59))
    assert (decision.action, decision.reason) == ("wait", "59 of at least 60 s in 'shadow'")


def test_any_failing_critical_gate_aborts_at_once() -> None:
    """Harm in one gate aborts before the minimum duration, though the other gate passes."""
    decision = decide(begun(), evidence(begun(), 18_100, 2_000), POLICY, later(1))
    assert decision.action == "abort"
    assert decision.reason.startswith("error_rate: candidate 0.1000")


def test_a_gate_that_is_not_critical_neither_blocks_nor_aborts() -> None:
    """Satisfaction is reported as inconclusive and the rollout advances."""
    decision = decide(begun(), evidence(begun(), 18_100, 190), POLICY, later(60))
    assert decision.action == "advance"


@pytest.mark.parametrize(("stage", "action"), [("shadow", "pause"), ("20%", "abort")])
def test_a_stage_that_runs_out_of_time_does_what_its_policy_says(stage: str, action: str) -> None:
    """Without a decision in max_wait_s the stage pauses or aborts; it never advances."""
    state = begun().model_copy(update={"stage": stage})
    assert decide(state, StageEvidence(), POLICY, later(600)).action == action


def test_a_stage_that_can_observe_none_of_its_gates_waits() -> None:
    """Gates that a stage cannot show are left out, but leaving out all of them promotes nobody."""
    policy = RolloutPolicy(stages=POLICY.stages, gates=[Gate(metric="satisfaction", margin=0.05)])
    decision = decide(begun(), StageEvidence(unobservable=frozenset({"satisfaction"})), policy, later(300))
    assert decision.action == "wait"
    assert "can observe none" in decision.reason


def test_a_stage_that_the_policy_lost_pauses() -> None:
    """A changed ratchet.toml does not make the controller guess where it was."""
    state = begun().model_copy(update={"stage": "7%"})
    assert decide(state, StageEvidence(), POLICY, later(1)).action == "pause"


share = st.none() | st.integers(0, 20_000)


@given(completed=share, errors=share, seconds=st.floats(0, 1e6), stage=st.sampled_from(["shadow", "20%", "100%"]))
def test_missing_data_never_promotes(completed: int | None, errors: int | None, seconds: float, stage: str) -> None:
    """Whatever the other gate shows and however long it takes: a critical gate without data advances nobody."""
    state = begun().model_copy(update={"stage": stage})
    decision = decide(state, evidence(state, completed, errors), POLICY, later(seconds))
    if completed is None or errors is None:
        assert decision.action not in ("advance", "promote")


verbs = st.sampled_from(["decide", "pause", "resume", "abort", "promote", "full", "undo", "start", "supersede"])


@given(st.lists(st.tuples(verbs, share, share, st.floats(0, 700)), max_size=25))
def test_any_history_keeps_the_invariants(steps: list[tuple[str, int | None, int | None, float]]) -> None:
    """Versions grow by one, aborts restore the stable adapter alone, paused rollouts move by people alone."""
    state, now = begun(), START
    for number, (verb, completed, errors, seconds) in enumerate(steps):
        now += timedelta(seconds=seconds)
        before, one = state, event_id(now, str(number))
        try:
            if verb == "decide":
                decision = decide(
                    state, evidence(state, completed, errors) if state.stage else StageEvidence(), POLICY, now
                )
                state = apply(state, decision, POLICY, now, one)
                assert before.status == "running" or state is before
            elif verb == "start":
                state = begun(state, f"support@v{number + 3}-12345678", now)
            elif verb == "supersede":
                state = supersede(state, V3, now, one)
                assert (before.status, before.weight_bp) == ("running", 0)
            else:
                state = {
                    "pause": lambda s=state, t=now, i=one: pause(s, t, i, "ada", "why"),
                    "resume": lambda s=state, t=now, i=one: resume(s, POLICY, t, i, "ada", "why"),
                    "abort": lambda s=state, t=now, i=one: abort(s, t, i, "ada", "why"),
                    "promote": lambda s=state, t=now, i=one: promote(s, POLICY, t, i, "ada", "why", False),
                    "full": lambda s=state, t=now, i=one: promote(s, POLICY, t, i, "ada", "why", True),
                    "undo": lambda s=state, t=now, i=one: undo(s, t, i, "ada", "why"),
                }[verb]()
        except RolloutError:
            assert state is before
        if state is not before:
            assert state.version == before.version + 1
            Rollout.model_validate(state.model_dump())  # model_copy does not validate
        if state.action in ("abort", "supersede", "undo", "promote") and state is not before:
            assert (state.weight_bp, state.mirror_bp) == (0, 0)
        if state.action in ("abort", "supersede"):
            assert state.stable == before.stable
        if state.status not in ("running", "paused"):
            assert state.weight_bp == state.mirror_bp == 0


def test_undo_goes_back_and_forth() -> None:
    """Undo serves the previous stable adapter; undoing again returns to the promoted one."""
    promoted = promote(begun(), POLICY, later(1), event_id(later(1)), "ada", "sure", full=True)
    undone = undo(promoted, later(2), event_id(later(2)), "ada", "oops")
    again = undo(undone, later(3), event_id(later(3)), "ada", "it was fine")
    assert [(one.stable, one.previous) for one in (promoted, undone, again)] == [
        (V2, "base"),
        ("base", V2),
        (V2, "base"),
    ]


def test_a_resumed_stage_starts_again() -> None:
    """The clock starts anew, so a stage that ran out of time has time again."""
    paused = pause(begun(), later(600), event_id(later(600)), "controller", "no decision")
    running = resume(paused, POLICY, later(900), event_id(later(900)), "ada", "more traffic now")
    assert (running.stage, running.stage_started_at, running.mirror_bp) == ("shadow", later(900), 1_000)


R4 = "support@v4-44444444"
"""A reward model."""


def adapter(name: str, at: datetime, status: str = "registered") -> Adapter:
    """A registered adapter."""
    return Adapter.model_validate(
        {
            "id": event_id(at, name), "at": at, "task": "support", "name": name, "label": "l", "status": status,
            "method": "dpo", "base_model": "m", "path": "p", "weights_sha256": "0" * 64, "dataset": "d",
            "dataset_sha256": "0" * 64, "job_id": event_id(at, "job"),
        }
    )  # fmt: skip


def test_the_newest_registered_adapter_waits() -> None:
    """Rejected ones never do; among the rest the highest number does."""
    registry = [adapter(V1, START), adapter(V2, START), adapter(V3, START, "rejected")]
    assert next_candidate("support", registry, None) == registry[1]
    assert next_candidate("other", registry, None) is None
    assert (
        next_candidate("support", registry, refuse("support", None, START, event_id(START), "ada", "no")) == registry[1]
    )


def test_what_was_tried_never_comes_back_by_itself() -> None:
    """After an abort the same adapter does not wait, even when a person then tries an older one."""
    registry = [adapter(V2, START), adapter(V3, START)]
    aborted = abort(begun(candidate=V3, at=later(1)), later(2), event_id(later(2)), "ada", "bad")
    assert next_candidate("support", registry, aborted) is None
    older = abort(begun(aborted, V2, later(3)), later(4), event_id(later(4)), "ada", "bad too")
    assert next_candidate("support", registry, older) is None
    newest = adapter("support@v4-44444444", later(5))
    assert next_candidate("support", [*registry, newest], older) == newest


def test_a_reward_model_never_waits_for_a_rollout() -> None:
    """It says how good answers are and gives none: the newest adapter that answers is the candidate."""
    answers, rewards = adapter(V3, START), adapter(R4, later(1)).model_copy(update={"method": "reward"})
    assert next_candidate("support", [answers, rewards], None) == answers
    assert next_candidate("support", [rewards], None) is None


def asked(verb: str, **fields: object) -> Operator:
    """An instruction of a person."""
    body = {"id": event_id(later(50), verb), "at": later(50), "task": "support", "verb": verb, "who": "ada"}
    return Operator.model_validate(body | fields)


@pytest.mark.parametrize(
    ("instruction", "state", "reason"),
    [
        (asked("abort"), None, "task 'support' has had no rollout yet"),
        (asked("resume"), begun(), "nothing to resume: the last rollout of 'support' is running"),
        (asked("undo"), begun(), f"a rollout of {V2} is running: abort it instead"),
        (asked("start", adapter=V3), begun(), f"{V3} is not in the registry"),
        (asked("start", adapter=V1), begun(), f"a rollout of {V2} is running in 'shadow': abort it first"),
        (asked("start"), begun(), "start needs an adapter's name"),
        (asked("start", adapter=R4), None, f"{R4} is a reward model: it says how good answers are, and gives none"),
    ],
)
def test_an_instruction_that_does_not_fit_is_refused_with_the_reason(
    instruction: Operator, state: Rollout | None, reason: str
) -> None:
    """The table stays as it is but for its version, and says who asked and why it was refused."""
    registry = {V1: adapter(V1, START), R4: adapter(R4, START).model_copy(update={"method": "reward"})}
    ids = iter(event_id(later(n), "new") for n in range(9))
    table = follow(instruction, state, POLICY, registry, later(60), lambda: next(ids))
    assert (table.action, table.actor, table.reason) == ("refuse", "ada", reason)
    assert table.operator_seen == instruction.id
    if state is not None:
        kept = {"stable", "candidate", "weight_bp", "mirror_bp", "status", "stage", "stage_started_at"}
        assert table.model_dump(include=kept) == state.model_dump(include=kept)


def test_a_person_starts_and_aborts() -> None:
    """Instructions name the person in the audit log, and abort needs no policy."""
    ids = iter(event_id(later(n), "new") for n in range(9))
    started = follow(asked("start", adapter=V1), None, POLICY, {V1: adapter(V1, START)}, later(1), lambda: next(ids))
    ended = follow(asked("abort", why="bad answers"), started, None, {}, later(2), lambda: next(ids))
    assert (started.action, started.stage, started.actor) == ("start", "shadow", "ada")
    assert (ended.action, ended.reason, ended.weight_bp, ended.stable) == ("abort", "bad answers", 0, "base")
