"""The rollout's transitions: stage by stage, what is carried, who may do what, and what waits."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.errors import RolloutError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.rollouts.deciding import decide, gates_of, stage_of
from ratchet.services.rules.rollouts.evidence import Evidence, Means, Sample, StageEvidence
from ratchet.services.rules.rollouts.instructions import follow
from ratchet.services.rules.rollouts.tables import confirm, refuse
from ratchet.services.rules.rollouts.transitions import (
    abort,
    apply,
    begin,
    pause,
    promote,
    resume,
    supersede,
    undo,
)
from ratchet.services.rules.rollouts.waiting import queue

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
V1, V2, V3 = "support@v1-11111111", "support@v2-22222222", "support@v3-33333333"
POLICY = RolloutPolicy(
    stages=[
        Stage(name="shadow", mirror_bp=1_000, min_duration_s=60, max_wait_s=600),
        Stage(name="20%", weight_bp=2_000, min_duration_s=60, max_wait_s=600, on_timeout="rollback"),
        Stage(name="100%", weight_bp=10_000, min_duration_s=60, max_wait_s=600),
    ],
    gates=[
        Gate(metric="completion", margin=0.02),
        Gate(metric="error_rate", margin=0.01),
        Gate(metric="satisfaction", margin=0.05, dry_run=True),
    ],
)


def event_id(at: datetime, *parts: str) -> str:
    """A UUIDv7 of this instant."""
    return derived_id(int(at.timestamp() * 1000), *parts)


def begun(state: Rollout | None = None, candidate: str = V2, at: datetime = START) -> Rollout:
    """A rollout in its first stage."""
    return begin("support", candidate, POLICY, state, at, event_id(at, "e"), event_id(at, "r"))


def evidence(state: Rollout, completed: int | None, errors: int | None, n: int = 4_000) -> StageEvidence:
    """Both arms with n calls; the stable one completes 90% and fails 1%."""
    old = {"completion": n * 9 // 10, "error_rate": n // 100, "satisfaction": 0}
    new = {"completion": completed, "error_rate": errors, "satisfaction": None}
    stage = stage_of(POLICY, state.stage)
    assert stage is not None
    seen = {
        gate.metric: Evidence(
            (
                Means(
                    Sample.proportion(n, old[gate.metric]),
                    None if (k := new[gate.metric]) is None else Sample.proportion(n, k),
                ),
            )
        )
        for gate in gates_of(POLICY, stage)
    }
    return StageEvidence(seen, requests=n)


def later(seconds: float) -> datetime:
    """An instant after the start."""
    return START + timedelta(seconds=seconds)


def test_a_healthy_candidate_goes_through_every_stage_and_is_promoted() -> None:
    """Advance, advance, promote: weights by the policy, one salt, and the old stable kept as previous."""
    state, seen = begun(), []
    for step in range(3):
        now = later(100 * (step + 1))
        state = apply(state, decide(state, evidence(state, 3_700, 30), POLICY, now), POLICY, now, event_id(now))
        seen.append((state.action, state.stage, state.weight_bp, state.mirror_bp, state.salt))
    salt = begun().salt
    assert seen == [
        ("advance", "20%", 2_000, 0, salt),
        ("advance", "100%", 10_000, 0, salt),
        ("promote", "100%", 0, 0, salt),
    ]
    assert (state.status, state.stable, state.previous) == ("promoted", V2, "base")
    assert [gate.verdict for gate in state.gates] == ["pass", "pass", "inconclusive"]


share = st.none() | st.integers(0, 4_000)


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
                assert before.status == "running" or state is before or before.paused_by == "controller"
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
        assert (state.paused_by is not None) == (state.status == "paused")
        assert all(0 < span.weight_bp < 10_000 for span in state.carried)
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


def test_undo_goes_back_to_any_earlier_adapter() -> None:
    """Named, it is served again; the stable one itself and another task's are refused."""
    promoted = promote(begun(), POLICY, later(1), event_id(later(1)), "ada", "sure", full=True)
    back = undo(promoted, later(2), event_id(later(2)), "ada", "oops", V1)
    assert (back.stable, back.previous, back.status) == (V1, V2, "idle")
    for wrong in (V2, "other@v1-11111111"):
        with pytest.raises(RolloutError):
            undo(promoted, later(2), event_id(later(2)), "ada", "oops", wrong)


def test_a_resumed_stage_starts_again() -> None:
    """The clock starts anew, so a stage that ran out of time has time again; nothing is carried into it."""
    paused = pause(begun(), later(600), event_id(later(600)), "controller", "no decision")
    running = resume(paused, POLICY, later(900), event_id(later(900)), "ada", "more traffic now")
    assert (running.stage, running.stage_started_at, running.mirror_bp) == ("shadow", later(900), 1_000)
    assert (paused.paused_by, running.paused_by, running.carried) == ("controller", None, [])


def advanced(state: Rollout, policy: RolloutPolicy, seconds: float) -> Rollout:
    """The next stage, by good evidence."""
    decision = decide(state, evidence(state, 3_700, 30), policy, later(seconds))
    assert decision.action == "advance"
    return apply(state, decision, policy, later(seconds), event_id(later(seconds)))


def test_evidence_is_carried_from_stages_with_users_where_the_stage_says_so() -> None:
    """Never a shadow stage's; a stage that resets begins with nothing, neither spans nor proofs."""
    fifth = advanced(begun(), POLICY, 100)
    assert (fifth.carried, fifth.proved) == ([], [])
    full = advanced(fifth, POLICY, 200)
    assert [(one.stage, one.weight_bp, one.since, one.until) for one in full.carried] == [
        ("20%", 2_000, later(100), later(200))
    ]
    assert len(full.proved) == 2
    stages = [stage.model_copy(update={"evidence": "reset"}) for stage in POLICY.stages]
    reset = POLICY.model_copy(update={"stages": stages})
    again = advanced(fifth, reset, 200)
    assert (again.carried, again.proved) == ([], [])


def test_a_persons_promotion_is_not_judged_by_what_came_before() -> None:
    """The next stage carries nothing: only harm that is seen from now on aborts it."""
    by_hand = promote(advanced(begun(), POLICY, 100), POLICY, later(150), event_id(later(150)), "ada", "sure", False)
    assert (by_hand.stage, by_hand.carried, by_hand.actor) == ("100%", [], "ada")


def test_a_confirmed_table_is_the_same_under_a_new_version() -> None:
    """So that compaction keeps what every reader took; a pause stays a person's."""
    paused = pause(begun(), later(5), event_id(later(5)), "ada", "lunch")
    again = confirm(paused, later(6), event_id(later(6)), "two tables of version 2")
    same = {"status", "stage", "weight_bp", "mirror_bp", "stable", "candidate", "paused_by"}
    assert again.model_dump(include=same) == paused.model_dump(include=same)
    assert (again.version, again.action, again.paused_by) == (paused.version + 1, "confirm", "ada")


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


def next_candidate(task: str, registry: list[Adapter], state: Rollout | None) -> Adapter | None:
    """The first that waits."""
    return next(iter(queue(task, registry, state)), None)


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


def test_an_aborted_dataset_is_not_tried_again_without_a_person() -> None:
    """Another adapter of that dataset version does not wait, one of a new version does; retry takes the block off."""
    aborted = abort(begun(), later(2), event_id(later(2)), "controller", "bad", dataset="d")
    same, other = adapter(V3, later(3)), adapter(V3, later(3)).model_copy(update={"dataset": "d2"})
    assert aborted.blocked == ["d"]
    assert next_candidate("support", [same], aborted) is None
    assert next_candidate("support", [other], aborted) == other
    ids = iter(event_id(later(n), "new") for n in range(9))
    again = follow(asked("retry"), aborted, POLICY, {V2: adapter(V2, START)}, later(4), lambda: next(ids))
    assert (again.action, again.candidate, again.actor, again.blocked) == ("start", V2, "ada", [])
    assert again.rollout_id != aborted.rollout_id


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
        (asked("retry"), begun(), "nothing to retry: the last rollout of 'support' is running"),
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
