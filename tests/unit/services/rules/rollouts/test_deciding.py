"""What promotes, what aborts, what holds a rollout, and that nobody is overridden."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.rules.rollouts.deciding import Decision, decide, key
from ratchet.services.rules.rollouts.evidence import Burst, Evidence, Means, Sample, Split, StageEvidence, Stratum
from ratchet.services.rules.rollouts.transitions import apply, begin, pause

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
COMPLETION = Gate(metric="completion", margin=0.02)
ERRORS = Gate(metric="error_rate", margin=0.01, max_n=4_000)
THUMBS = Gate(metric="satisfaction", margin=0.05, critical=False)
POLICY = RolloutPolicy(
    stages=[
        Stage(name="shadow", mirror_bp=1_000, min_duration_s=60, max_wait_s=600),
        Stage(name="20%", weight_bp=2_000, min_duration_s=60, max_wait_s=600, on_timeout="rollback"),
        Stage(name="100%", weight_bp=10_000, min_duration_s=60, max_wait_s=600),
    ],
    gates=[COMPLETION, ERRORS],
)


def at(seconds: float) -> datetime:
    """An instant after the start."""
    return START + timedelta(seconds=seconds)


def table(stage: str = "shadow", **changes: object) -> Rollout:
    """A running rollout in one stage."""
    made = derived_id(int(START.timestamp() * 1000), "x")
    begun = begin("support", "support@v2-22222222", POLICY, None, START, made, made)
    weight = {"shadow": 0, "20%": 2_000, "100%": 10_000}.get(stage, 0)
    return begun.model_copy(update={"stage": stage, "weight_bp": weight} | changes)


def rate(n: int, k: int | None, n_old: int = 4_000, k_old: int = 3_600) -> Means:
    """Both arms of a rate; None: the candidate's is missing."""
    return Means(Sample.proportion(n_old, k_old), None if k is None else Sample.proportion(n, k))


def seen(completion: Stratum | None = None, errors: Stratum | None = None, **others: object) -> StageEvidence:
    """Evidence of the two gates: good unless said otherwise, of 4,000 requests in each arm."""
    by_gate = {
        "completion": Evidence((completion or rate(4_000, 3_700),)),
        "error_rate": Evidence((errors or rate(4_000, 30, k_old=40),)),
    }
    return replace(StageEvidence(by_gate, requests=4_000), **others)  # type: ignore[arg-type]


def decided(evidence: StageEvidence, seconds: float, stage: str = "shadow", policy: RolloutPolicy = POLICY) -> Decision:
    """What is decided so many seconds into a stage."""
    return decide(table(stage), evidence, policy, at(seconds))


@pytest.mark.parametrize(("stage", "action"), [("shadow", "advance"), ("20%", "advance"), ("100%", "promote")])
def test_all_gates_proved_and_time_over_goes_on(stage: str, action: str) -> None:
    """To the next stage, and from the last one to the end."""
    assert decided(seen(), 60, stage).action == action


def test_proved_gates_wait_for_the_minimum_duration_and_are_written_down_meanwhile() -> None:
    """Daily patterns need the stage's whole duration; a sequential test that passed is over, and says so."""
    early = decided(seen(), 59)
    assert (early.action, early.reason) == ("prove", "completion, error_rate: within the margin")
    proved = apply(table(), early, POLICY, at(59), derived_id(0, "a"))
    assert proved.proved == [key(COMPLETION), key(ERRORS)]
    unsure = seen(rate(4_000, 3_600))
    waits = decide(proved, unsure, POLICY, at(59))
    assert (waits.action, waits.reason) == ("wait", "59 of at least 60 s in 'shadow'")
    assert decide(proved, unsure, POLICY, at(60)).action == "advance"


def test_a_gate_with_another_margin_is_another_question() -> None:
    """What was proved under a wide margin is not proved under a narrow one."""
    state = table(proved=[key(COMPLETION), key(ERRORS)])
    narrow = POLICY.model_copy(update={"gates": [COMPLETION.model_copy(update={"margin": 0.001}), ERRORS]})
    assert decide(state, seen(rate(2_000, 1_800)), narrow, at(60)).action == "wait"
    assert decide(state, seen(rate(2_000, 1_800)), POLICY, at(60)).action == "advance"


def test_any_failing_critical_gate_aborts_at_once_though_it_was_proved_before() -> None:
    """Harm in one gate aborts before the minimum duration, whatever passed, once or now."""
    harm = seen(errors=rate(4_000, 400, k_old=40))
    decision = decided(harm, 1)
    assert decision.action == "abort"
    assert decision.reason.startswith("error_rate: candidate 0.1000")
    assert decide(table("20%", proved=[key(ERRORS)]), harm, POLICY, at(1)).action == "abort"


def test_a_gate_that_is_not_critical_must_pass_and_pauses_where_it_fails() -> None:
    """Without it nothing goes on; its failure is for a person to look at."""
    policy = POLICY.model_copy(update={"gates": [*POLICY.gates, THUMBS]})
    said = {"satisfaction": Evidence((rate(1_000, 600, 1_000, 900),))}
    assert decided(seen(), 60, "20%", policy).action == "prove"
    assert decided(replace(seen(), by_gate=seen().by_gate | said), 1, "20%", policy).action == "pause"


def test_a_dry_run_is_shown_and_changes_nothing() -> None:
    """Neither its failure nor its silence has a say; its figures are in the decision."""
    policy = POLICY.model_copy(update={"gates": [*POLICY.gates, THUMBS.model_copy(update={"dry_run": True})]})
    said = {"satisfaction": Evidence((rate(1_000, 600, 1_000, 900),))}
    decision = decided(replace(seen(), by_gate=seen().by_gate | said), 60, "20%", policy)
    assert decision.action == "advance"
    assert [one.verdict for one in decision.gates] == ["pass", "pass", "fail"]


@pytest.mark.parametrize(("stage", "action"), [("shadow", "pause"), ("20%", "abort")])
def test_a_stage_that_runs_out_of_time_does_what_its_policy_says(stage: str, action: str) -> None:
    """Without a decision in max_wait_s the stage pauses or rolls back; it never advances."""
    assert decided(StageEvidence(), 600, stage).action == action


def test_durations_are_scaled_by_one_setting() -> None:
    """A rehearsal takes a hundredth of the time: minimum durations and waits alike."""
    quick = POLICY.model_copy(update={"time_scale": 0.01})
    assert decided(seen(), 0.6, policy=quick).action == "advance"
    assert decided(StageEvidence(), 6, policy=quick).action == "pause"


def test_a_gate_has_its_own_time_and_its_own_end() -> None:
    """One that waits for thumbs may give up earlier than its stage, and in another way."""
    gates = [COMPLETION.model_copy(update={"max_wait_s": 30.0, "on_timeout": "rollback"}), ERRORS]
    policy = POLICY.model_copy(update={"gates": gates})
    assert decided(seen(rate(4_000, None)), 29, policy=policy).action == "prove"
    ended = decided(seen(rate(4_000, None)), 30, policy=policy)
    assert (ended.action, ended.reason[:24]) == ("abort", "no decision within 30 s:")


def test_observations_that_are_used_up_end_the_stage() -> None:
    """At max_n the last look was taken: more of the same traffic cannot decide it, so nobody waits for it."""
    decision = decided(seen(rate(5_000, 4_450)), 1, "20%")
    assert decision.action == "abort"
    assert decision.reason.startswith("no decision within 5000 observations: completion: candidate 0.8900 of 5000")


def test_a_stage_that_can_observe_none_of_its_gates_waits() -> None:
    """Gates that a stage cannot show are left out, but leaving out all of them promotes nobody."""
    policy = POLICY.model_copy(update={"gates": [THUMBS]})
    decision = decided(StageEvidence(unobservable=frozenset({"satisfaction"}), requests=99), 300, policy=policy)
    assert decision.action == "wait"
    assert "can observe none" in decision.reason


def test_a_stage_sees_requests_of_its_own_whatever_was_carried_into_it() -> None:
    """Evidence may be carried; load cannot: a few of the candidate's own requests come first."""
    assert decided(replace(seen(), requests=49), 60, "20%").action == "prove"
    assert decided(replace(seen(), requests=50), 60, "20%").action == "advance"


def test_nothing_advances_before_every_gateway_follows_the_present_table() -> None:
    """A gateway that is out of reach splits by an older table; harm aborts all the same."""
    away = replace(seen(), waiting_for=("gw-2",))
    assert decided(away, 60, "20%").action == "prove"
    assert (
        "not acknowledged yet by gw-2"
        in decide(table("20%", proved=[key(COMPLETION), key(ERRORS)]), away, POLICY, at(60)).reason
    )
    assert decided(replace(seen(errors=rate(4_000, 400, k_old=40)), waiting_for=("gw-2",)), 1, "20%").action == "abort"


def test_a_burst_or_a_page_aborts_before_any_gate_has_its_numbers() -> None:
    """Ten failures of ten, or an open critical alert about the candidate, wait for no min_n."""
    few = StageEvidence(requests=10)
    assert decided(replace(few, burst=Burst(50, 0, 10, 10)), 1, "20%").action == "abort"
    assert decided(replace(few, burst=Burst(50, 45, 10, 9)), 1, "20%").action == "wait"
    paged = decided(replace(few, page="alert 7: quality fell"), 1, "20%")
    assert (paged.action, paged.reason) == ("abort", "alert 7: quality fell")
    deaf = POLICY.model_copy(update={"abort_on_page": False})
    assert decided(replace(few, page="alert 7: quality fell"), 1, "20%", deaf).action == "wait"


def test_a_split_that_is_not_the_planned_one_stops_the_stage() -> None:
    """With 700 of 2,000 users on a fifth's candidate the arms are not alike, and what they show is nothing."""
    assert decided(replace(seen(), split=Split(1_300, 700, 2_000)), 60, "20%").action == "pause"
    assert decided(replace(seen(), split=Split(1_620, 380, 2_000)), 60, "20%").action == "advance"


def test_what_a_person_paused_changes_by_a_person_alone() -> None:
    """Not even proved harm moves it; what the controller paused it still aborts, and nothing else."""
    harm, burst = seen(errors=rate(4_000, 400, k_old=40)), replace(seen(), burst=Burst(50, 0, 10, 10))
    for who, action in (("ada", "wait"), ("controller", "abort")):
        paused = pause(table("20%"), at(1), derived_id(0, "p"), who, "why")
        assert decide(paused, harm, POLICY, at(2)).action == action
        assert decide(paused, burst, POLICY, at(2)).action == action
        assert decide(paused, seen(), POLICY, at(99)).action == "wait"
        assert decide(paused, StageEvidence(), POLICY, at(9_999)).action in ("wait", action)


def test_a_stage_that_the_policy_lost_pauses() -> None:
    """A changed ratchet.toml does not make the controller guess where it was."""
    assert decided(StageEvidence(), 1, "7%").action == "pause"


@pytest.mark.parametrize("seconds", [-1e6, -1.0])
def test_a_clock_that_went_back_is_no_time_passed(seconds: float) -> None:
    """A stage that seems to begin in the future goes nowhere, and is not given up."""
    assert decided(seen(), seconds).action == "prove"
    assert decided(StageEvidence(), seconds).action == "wait"


share = st.none() | st.integers(0, 4_000)


@given(completed=share, errors=share, seconds=st.floats(-1e6, 1e6), stage=st.sampled_from(["shadow", "20%", "100%"]))
def test_missing_data_never_promotes(completed: int | None, errors: int | None, seconds: float, stage: str) -> None:
    """Whatever the other gate shows and however long it takes: a gate without data advances nobody."""
    decision = decided(seen(rate(4_000, completed), rate(4_000, errors, k_old=40)), seconds, stage)
    if completed is None or errors is None:
        assert decision.action not in ("advance", "promote")
