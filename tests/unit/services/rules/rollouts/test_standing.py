"""Where a rollout stands: time, how far each gate is from deciding, who follows and who waits."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import Rollout, Span
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy
from ratchet.services.rules.rollouts.deciding import key
from ratchet.services.rules.rollouts.evidence import Evidence, Means, Sample
from ratchet.services.rules.rollouts.gates import evaluate
from ratchet.services.rules.rollouts.standing import gate_standing, gateway_standings, needed_n, track, waiting_list

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
BEGAN = NOW - timedelta(hours=2)
GATE = Gate(metric="completion", margin=0.02)
POLICY = RolloutPolicy.model_validate({"gates": [{"metric": "completion", "margin": 0.02}]})
FIVE = POLICY.stages[1]


def id_at(instant: datetime) -> str:
    """An id of that instant."""
    return uuid7(int(instant.timestamp() * 1000), bytes(10))


def table(stage: str = "5%", status: str = "running", **more: Any) -> Rollout:
    """A routing table two hours into a stage."""
    body = {
        "id": id_at(BEGAN), "at": BEGAN, "task": "support", "rollout_id": id_at(BEGAN), "version": 7, "status": status,
        "stage": stage, "stage_started_at": BEGAN, "stable": "support@v1-00000000", "candidate": "support@v2-00000000",
        "weight_bp": 500, "action": "advance",
    }  # fmt: skip
    return Rollout.model_validate(body | more)


def adapter(number: int, at: datetime = NOW, **more: Any) -> Adapter:
    """A registered adapter."""
    body = {
        "id": id_at(at), "at": at, "task": "support", "name": f"support@v{number}-00000000", "label": "l",
        "status": "registered", "method": "dpo", "base_model": "m", "path": "/a", "weights_sha256": "0" * 64,
        "dataset": f"d{number}", "dataset_sha256": "0" * 64, "job_id": id_at(at),
    }  # fmt: skip
    return Adapter.model_validate(body | more)


def rates(candidate: float, n: int, stable: float = 0.9, n_stable: int = 8_000) -> Evidence:
    """Completion in both arms of one stage."""
    return Evidence((Means(Sample.proportion(n_stable, n_stable * stable), Sample.proportion(n, n * candidate)),))


def test_the_track_says_what_is_over_and_how_long_the_present_stage_takes() -> None:
    """Earlier stages are past, the present one has its time so far, scaled like its least and its most."""
    steps = track(table(), POLICY.model_copy(update={"time_scale": 0.5}), NOW)
    assert [step.place for step in steps] == ["past", "present", "ahead", "ahead", "ahead"]
    assert (steps[1].elapsed_s, steps[1].min_s, steps[1].max_s) == (7_200, 7_200, 302_400)
    assert [step.elapsed_s for step in steps if step.place != "present"] == [None] * 4


@pytest.mark.parametrize(
    ("stage", "status", "places"),
    [
        ("100%", "promoted", ["past"] * 5),
        ("5%", "aborted", ["past"] + ["ahead"] * 4),
        ("gone", "running", ["ahead"] * 5),
    ],
)
def test_a_rollout_that_is_over_is_in_no_stage(stage: str, status: str, places: list[str]) -> None:
    """A promoted one went through all of them; a stage that the policy lost is nowhere on the track."""
    assert [step.place for step in track(table(stage, status), POLICY, NOW)] == places


@pytest.mark.parametrize("candidate", [0.9, 0.91, 0.93])
def test_what_a_gate_needs_is_what_it_then_passes_with(candidate: float) -> None:
    """With that many observations at the same rates the gate itself passes, and with a tenth fewer it does not."""
    n = 400
    gate = GATE.model_copy(update={"max_n": 20_000})
    needed = needed_n(gate, evaluate(gate, rates(candidate, n)))
    assert n < needed < gate.max_n

    def passes(at: int) -> bool:
        return evaluate(gate, rates(candidate, at, n_stable=20 * at)).verdict == "pass"

    assert passes(math.ceil(needed * 1.02))
    assert not passes(math.floor(needed * 0.9))


@pytest.mark.parametrize("evidence", [None, rates(0.9, 20), rates(0.85, 400)])
def test_a_gate_without_a_bound_or_beyond_its_margin_is_decided_last(evidence: Evidence | None) -> None:
    """No data, too few of them, or a candidate that is worse than the margin now: ``max_n``."""
    assert needed_n(GATE, evaluate(GATE, evidence)) == GATE.max_n


def test_a_passed_gate_needs_nothing_more() -> None:
    """However it stands now, what it has is enough."""
    result = evaluate(GATE, rates(0.95, 4_000))
    assert result.verdict == "pass"
    assert needed_n(GATE, result) == 4_000


def test_users_who_repeat_themselves_take_longer() -> None:
    """Where four observations say as much as one, the last look comes four times as late."""
    arms = [Sample.proportion(n, n * 0.85) for n in (8_000, 400)]
    clustered = [replace(arm, mean_variance=4 * 0.85 * 0.15 / arm.n) for arm in arms]
    result = evaluate(GATE, Evidence((Means(replace(clustered[0], total=7_200, squares=7_200), clustered[1]),)))
    assert needed_n(GATE, result) == pytest.approx(4 * GATE.max_n, rel=0.1)


def standing(evidence: Evidence | None, gate: Gate = GATE, **more: Any) -> Any:
    """The standing of one gate in the 5% stage, two hours after it began."""
    return gate_standing(gate, evaluate(gate, evidence), evidence, table(**more), FIVE, 1.0, NOW)


def test_the_time_left_follows_from_the_stages_own_rate() -> None:
    """400 observations in two hours: the missing ones take a hundredth of an hour for two each."""
    one = standing(rates(0.91, 400))
    assert one.remaining_s == pytest.approx((one.needed_n - 400) * 18)
    assert one.left_s == 7 * 86_400 - 7_200
    assert not one.cannot_decide


def test_what_was_carried_is_no_rate() -> None:
    """Only the present stage's observations say how fast more come; what was carried is named."""
    carried = rates(0.91, 2_000).strata + rates(0.91, 10).strata
    span = Span(stage="shadow", weight_bp=100, since=BEGAN, until=BEGAN)
    one = standing(Evidence(carried), carried=[span])
    assert one.carried == ("shadow",)
    assert one.result.candidate.n == 2_010
    assert one.remaining_s == pytest.approx((one.needed_n - 2_010) * 720)


def test_a_gate_that_time_runs_out_for_cannot_decide() -> None:
    """Two observations an hour decide nothing in a week; none at all never do; a proved gate is done."""
    assert standing(rates(0.91, 4)).cannot_decide
    assert standing(None).remaining_s is None
    assert standing(None).cannot_decide
    assert not standing(None, proved=[key(GATE)]).cannot_decide
    impatient = GATE.model_copy(update={"max_wait_s": 7_300.0})
    assert standing(rates(0.91, 400), impatient).left_s == 100
    assert standing(rates(0.91, 400), impatient).cannot_decide


def test_a_gateway_follows_is_behind_or_is_out_of_reach() -> None:
    """By the version that it said last and by how long ago that was; 0 is a gateway without a table of the task."""

    def row(name: str, version: int, seconds: float) -> dict[str, Any]:
        return {"gateway": name, "version": version, "since": BEGAN, "seen_at": NOW - timedelta(seconds=seconds)}

    found = gateway_standings([row("c", 0, 1), row("b", 6, 30), row("a", 7, 2)], 7, NOW)
    assert [(one.gateway, one.version, one.acknowledged, one.silent) for one in found] == [
        ("a", 7, True, False), ("b", 6, False, True), ("c", None, False, False),
    ]  # fmt: skip
    assert found[2].since is None


def test_the_queue_says_who_is_next_and_why_not_yet() -> None:
    """The newest is next; older ones, and those of an aborted dataset, wait for a person."""
    waiting = [adapter(2), adapter(3), adapter(4), adapter(5, dataset="bad"), adapter(6, status="rejected")]
    found = {one.adapter: one for one in waiting_list("support", waiting, table(blocked=["bad"]))}
    assert list(found) == ["support@v4-00000000", "support@v5-00000000", "support@v3-00000000"]
    assert [one.next for one in found.values()] == [True, False, False]
    why = [one.why for one in found.values()]
    assert why == [
        "the rollout of support@v2-00000000 is running in '5%': one at a time",
        "an adapter of dataset bad was aborted: only a person starts it",
        "support@v4-00000000 is newer and goes first: only a person starts it",
    ]


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (None, "it begins once every replica has loaded it"),
        (table(status="aborted", weight_bp=0), "it begins once every replica has loaded it"),
        (table("shadow", weight_bp=0),
         "it supersedes support@v2-00000000, which has served nobody yet, once every replica has loaded it"),
        (table("shadow", "paused", weight_bp=0),
         "the rollout of support@v2-00000000 is paused in 'shadow': one at a time"),
    ],
)  # fmt: skip
def test_the_next_one_waits_for_what_is_under_way(state: Rollout | None, why: str) -> None:
    """Nothing, a rollout that served nobody, or one that somebody must end."""
    assert [(one.adapter, one.why) for one in waiting_list("support", [adapter(3)], state)] == [
        ("support@v3-00000000", why)
    ]


def test_an_adapter_older_than_the_rollout_waits_for_a_person() -> None:
    """It was passed over when the rollout began."""
    (one,) = waiting_list("support", [adapter(3, BEGAN - timedelta(hours=1))], table())
    assert (one.next, one.why) == (False, "it was there before the last rollout began: only a person starts it")
