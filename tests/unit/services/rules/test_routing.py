"""Routing's properties: cohorts nest, shares hold, fallbacks end at the base model."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import new_id, now
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.gateway.routes import RoutingTables
from ratchet.services.rules.routing import Leg, bucket, choose, sticky_key, under_way

STABLE = "t@v1-aaaaaaaa"
CANDIDATE = "t@v2-bbbbbbbb"
weights = st.integers(0, 10_000)


def table(**changes: Any) -> Rollout:
    """A routing table with a candidate under way."""
    fields: dict[str, Any] = {
        "id": new_id(),
        "at": now(),
        "task": "t",
        "rollout_id": new_id(),
        "version": 1,
        "status": "running",
        "stage": "5%",
        "stage_started_at": now(),
        "stable": STABLE,
        "candidate": CANDIDATE,
        "salt": "salt",
        "action": "advance",
    }
    return Rollout(**fields | changes)


def served(rollout: Rollout, key: str, inference_id: str = "i") -> Leg:
    """The first leg of a key."""
    return choose(rollout, key=key, inference_id=inference_id).legs[0]


@given(st.text(), st.text())
def test_a_bucket_is_stable_and_in_range(salt: str, key: str) -> None:
    """The same salt and key give the same bucket of 0–9,999."""
    assert bucket(salt, key) == bucket(salt, key)
    assert 0 <= bucket(salt, key) < 10_000


def test_a_bucket_is_the_same_everywhere() -> None:
    """The hash is part of the contract: a literal value, so that nobody moves the cohorts by accident."""
    assert bucket("salt", "key") == 4280


@given(st.text(), weights, weights)
def test_cohorts_nest_as_the_weight_grows(key: str, one: int, other: int) -> None:
    """Who has the candidate at a weight has it at every greater weight."""
    small, large = sorted((one, other))
    if served(table(weight_bp=small), key).stage == "canary":
        assert served(table(weight_bp=large), key).stage == "canary"


@pytest.mark.parametrize("weight_bp", [0, 500, 2_000, 5_000, 10_000])
@pytest.mark.parametrize("salt", ["a", "b"])
def test_the_candidates_share_is_its_weight(weight_bp: int, salt: str) -> None:
    """Of 20,000 keys the candidate gets its weight's share, within four standard deviations."""
    rollout = table(weight_bp=weight_bp, salt=salt)
    n, p = 20_000, weight_bp / 10_000
    got = sum(served(rollout, f"user-{i}").stage == "canary" for i in range(n))
    assert abs(got - n * p) <= 4 * (n * p * (1 - p)) ** 0.5


def test_another_salt_draws_another_cohort() -> None:
    """Two rollouts do not try their candidates on the same people: cohorts of 20% overlap in about 4%."""
    both = sum(
        all(served(table(weight_bp=2_000, salt=salt), f"user-{i}").stage == "canary" for salt in ("a", "b"))
        for i in range(5_000)
    )
    assert 140 <= both <= 260


def test_mirroring_is_independent_of_the_cohort() -> None:
    """Requests are mirrored by their own ids, at the table's share, and never the candidate's own."""
    rollout = table(weight_bp=5_000, mirror_bp=5_000)
    routes = [choose(rollout, key=f"user-{i}", inference_id=f"user-{i}") for i in range(8_000)]
    stable = [route for route in routes if route.legs[0].stage == "stable"]
    assert all(route.mirror is None for route in routes if route.legs[0].stage == "canary")
    assert 0.46 <= sum(route.mirror == CANDIDATE for route in stable) / len(stable) <= 0.54


def test_the_fallback_chain() -> None:
    """Candidate falls back to stable and then to the base model; stable to the base model; none twice."""
    assert choose(table(weight_bp=10_000), key="k", inference_id="i").legs == (
        Leg(CANDIDATE, "canary"),
        Leg(STABLE, "fallback"),
        Leg("base", "fallback"),
    )
    assert choose(table(), key="k", inference_id="i").legs == (Leg(STABLE, "stable"), Leg("base", "fallback"))
    first = choose(table(stable="base", weight_bp=10_000), key="k", inference_id="i")
    assert first.legs == (Leg(CANDIDATE, "canary"), Leg("base", "fallback"))
    assert choose(None, key="k", inference_id="i").legs == (Leg("base", "stable"),)


def test_both_arms_carry_the_rollout_and_a_pinned_request_does_not() -> None:
    """The rollout's id is on both arms; a pinned adapter is alone and counts for nothing."""
    rollout = table(weight_bp=5_000)
    ids = {choose(rollout, key=f"{i}", inference_id="i").rollout_id for i in range(20)}
    assert ids == {rollout.rollout_id}
    pinned = choose(rollout, key="k", inference_id="i", pinned=STABLE)
    assert (pinned.legs, pinned.rollout_id, pinned.mirror) == ((Leg(STABLE, "pinned"),), None, None)


@pytest.mark.parametrize("status", ["idle", "promoted", "aborted", "superseded"])
def test_a_rollout_that_is_over_serves_no_candidate(status: str) -> None:
    """Whatever weights an ended rollout's table still has, nobody gets its candidate."""
    rollout = table(status=status, weight_bp=10_000, mirror_bp=10_000)
    route = choose(rollout, key="k", inference_id="i")
    assert not under_way(rollout)
    assert (route.legs[0], route.rollout_id, route.mirror) == (Leg(STABLE, "stable"), None, None)


def test_a_paused_rollout_goes_on_serving() -> None:
    """Pausing stops the stages, not the traffic: cohorts keep what they have."""
    assert served(table(status="paused", weight_bp=10_000), "k").stage == "canary"


def test_a_client_sticks_by_user_then_conversation_then_request() -> None:
    """The most lasting name that is there is the sticky key."""
    assert sticky_key("u", "c", "i") == "u"
    assert sticky_key(None, "c", "i") == "c"
    assert sticky_key(None, None, "i") == "i"


@given(st.permutations([1, 2, 3, 4, 5]))
def test_only_a_newer_table_replaces(versions: list[int]) -> None:
    """In whatever order tables come, and however often, the newest stays."""
    routes = RoutingTables()
    for version in [*versions, *versions]:
        routes.apply(table(version=version))
    kept = routes.get("t")
    assert kept is not None
    assert kept.version == 5
    assert routes.get("other") is None
