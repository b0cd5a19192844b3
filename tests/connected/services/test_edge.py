"""An edge of one's own: a real nginx follows the routing tables through the exporter, on a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_place import CANDIDATE, STABLE, EdgePlace, edge_place
from parts import wait_for

pytestmark = pytest.mark.connected


@pytest.fixture
def place(bootstrap: str, tmp_path: Path) -> Iterator[EdgePlace]:
    """The edge, which nobody has told a routing table yet."""
    with edge_place(tmp_path / "edge", bootstrap) as running:
        yield running


async def test_an_nginx_splits_by_user_and_switches_without_a_failed_request(place: EdgePlace) -> None:
    """Cohorts stick and nest, a failing candidate is answered for, and an abort that was acknowledged holds for all."""
    users = [f"user-{number}" for number in range(400)]
    assert place.stages(await place.ask(users[:9])) == {"stable": 9}
    assert {adapter for _, _, adapter in place.stable.asked} == {"base"}

    place.publish(weight_bp=500)
    await asyncio.to_thread(place.acknowledged)
    few = await place.cohort(users)
    assert 7 <= len(few) <= 33, "5% of 400 users, within three standard deviations"
    assert await place.cohort([*few, *users[:50]]) == few
    assert {adapter for _, _, adapter in place.candidate.asked} == {CANDIDATE}

    place.publish(weight_bp=2_000)
    await asyncio.to_thread(place.acknowledged)
    more = await place.cohort(users)
    assert few < more
    assert 56 <= len(more) <= 104, "20% of 400 users, within three standard deviations"

    place.candidate.status = 500
    answers = await place.ask(more)
    assert place.stages(answers) == {"fallback": len(more)}
    assert {answer.headers["x-ratchet-adapter"] for answer in answers} == {STABLE}
    place.candidate.status = 200

    async with place.load(users) as served:
        place.publish(weight_bp=0, status="aborted", action="abort")
        await asyncio.to_thread(place.acknowledged)
        asked, before = len(place.candidate.asked), len(served)
        await asyncio.to_thread(wait_for, lambda: len(served) > before + 200)
    assert len(place.candidate.asked) == asked, "nothing reached the candidate after the acknowledgement"
    stages = place.stages(served)
    assert stages["canary"] > 0
    assert stages["stable"] > 200
