"""Where adapters lie: nothing moves that need not, the load is even, and few adapters lie everywhere."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import new_id, now
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.placement import Placement, ranking, residents, within_bound

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
fleets = st.lists(names, min_size=2, max_size=12, unique=True).map(tuple)
ADAPTERS = [f"task-{i % 40}@v{i + 1}-{i:08x}" for i in range(2_000)]


@given(names, fleets, st.randoms())
def test_a_ranking_depends_on_names_alone(adapter: str, fleet: tuple[str, ...], random: Any) -> None:
    """Every process ranks the same, in whatever order it knows the replicas."""
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert ranking(adapter, tuple(shuffled)) == ranking(adapter, fleet)
    assert sorted(ranking(adapter, fleet)) == sorted(fleet)


def test_a_ranking_is_the_same_everywhere() -> None:
    """The hash is shared by processes of different age: literal values, so that nobody moves adapters by accident."""
    fleet = ("http://a:8000", "http://b:8000", "http://c:8000")
    assert ranking("support@v1-1a2b3c4d", fleet) == ("http://c:8000", "http://b:8000", "http://a:8000")


@given(names, fleets)
def test_a_replica_that_leaves_moves_its_own_adapters_alone(adapter: str, fleet: tuple[str, ...]) -> None:
    """The order of those that stay is the same without it, so an adapter that it did not have stays where it lies."""
    for gone in fleet:
        rest = tuple(replica for replica in fleet if replica != gone)
        assert ranking(adapter, rest) == tuple(r for r in ranking(adapter, fleet) if r != gone)


@given(names, fleets, names)
def test_a_replica_that_joins_moves_adapters_only_to_itself(adapter: str, fleet: tuple[str, ...], new: str) -> None:
    """No adapter moves between the replicas that were there before."""
    if new in fleet:
        return
    before = Placement(fleet, per_replica=1).of([adapter, "another"])[adapter]
    after = Placement((*fleet, new), per_replica=1).of([adapter, "another"])[adapter]
    assert set(after) - set(before) <= {new}


def test_a_replica_that_joins_takes_its_share() -> None:
    """The fifth of five replicas takes about a fifth of the copies, within a tenth of that."""
    fleet = tuple(f"http://vllm-{i}:8000" for i in range(5))
    places = Placement(fleet, per_replica=8).of(ADAPTERS)
    taken = sum(fleet[-1] in urls for urls in places.values())
    assert abs(taken - len(ADAPTERS) * 2 / 5) <= len(ADAPTERS) * 2 / 5 / 10


def test_adapters_are_spread_evenly() -> None:
    """With 2,000 adapters in two copies on 8 replicas each has its 500, within a fifth."""
    fleet = tuple(f"http://vllm-{i}:8000" for i in range(8))
    places = Placement(fleet, per_replica=300).of(ADAPTERS)
    assert {len(set(urls)) for urls in places.values()} == {2}
    counts = Counter(url for urls in places.values() for url in urls)
    assert all(400 <= counts[url] <= 600 for url in fleet)
    first = Counter(urls[0] for urls in places.values())
    assert all(200 <= first[url] <= 300 for url in fleet)


def test_few_adapters_lie_everywhere() -> None:
    """Up to what one replica holds, and without a limit, every replica has every adapter."""
    fleet = ("a", "b", "c")
    assert Placement(fleet, per_replica=2).of(["x", "y"]) == {"x": fleet, "y": fleet}
    assert Placement(fleet).of(["x", "y", "z"]) == dict.fromkeys("xyz", fleet)
    assert {len(urls) for urls in Placement(fleet, per_replica=2).of(["x", "y", "z"]).values()} == {2}
    assert Placement(("a",), per_replica=1).of(["x", "y"]) == {"x": ("a",), "y": ("a",)}


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=12))
def test_the_bound_passes_over_the_clearly_loaded_alone(loads: list[int]) -> None:
    """The chosen one is below one and a half times its fair share, and the first such."""
    chosen = within_bound(loads)
    fair = (sum(loads) + 1) / len(loads)
    assert loads[chosen] < 1.5 * fair + 1
    assert all(load >= 1.5 * fair for load in loads[:chosen])


def test_the_preferred_replica_is_used_until_it_is_clearly_more_loaded() -> None:
    """Idle or a little ahead: the first; far ahead: the next in order."""
    assert within_bound([0, 0]) == 0
    assert within_bound([1, 0]) == 0
    assert within_bound([5, 4]) == 0
    assert within_bound([8, 1]) == 1


def test_residents_are_what_a_flip_may_need() -> None:
    """Stable, previous and a candidate under way; neither the base model nor a candidate that was given up."""
    body: dict[str, Any] = {
        "id": new_id(), "at": now(), "task": "t", "rollout_id": new_id(), "version": 1, "status": "running",
        "stage": "5%", "stage_started_at": now(), "stable": "t@v1-aaaaaaaa", "previous": "base",
        "candidate": "t@v2-bbbbbbbb", "action": "start",
    }  # fmt: skip
    assert residents(Rollout(**body)) == {"t@v1-aaaaaaaa", "t@v2-bbbbbbbb"}
    assert residents(Rollout(**body | {"status": "aborted"})) == {"t@v1-aaaaaaaa"}


def test_an_adapter_lies_where_its_base_model_is() -> None:
    """Another pool has all of its own; only the first pool's adapters count against what a replica holds."""
    placement = Placement(("a", "b", "c"), per_replica=1, pools={"next": ("x", "y")})
    places = placement.of(["old", "new"], {"old": "tiny", "new": "next"})
    assert places == {"old": ("a", "b", "c"), "new": ("x", "y")}
    spread = placement.of(["old", "older", "new"], {"new": "next"})
    assert {len(spread["old"]), len(spread["older"])} == {2}
    assert spread["new"] == ("x", "y")
