"""Who leads: one of several members of a group, known to the broker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from parts import wait_for

from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.leadership import Leadership
from ratchet.schemas.errors import NotLeading
from ratchet.schemas.topics import ROLLOUT

SESSION_S = 6.0


@pytest.fixture
def member(kafka: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Makes members of a group of the test's own."""
    ensure_topics(kafka.bootstrap)
    session = 1.0 if kafka.embedded else SESSION_S  # Apache allows no shorter one
    group = f"leads-{os.getpid()}-{request.node.name}"
    made: list[Leadership] = []

    def make() -> Leadership:
        made.append(Leadership(kafka.bootstrap, ROLLOUT, group, session))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        with contextlib.suppress(RuntimeError):
            one.close()


def test_one_leads_and_the_next_one_when_it_leaves(member: Any) -> None:
    """The second is told so, leads when the first closes, and a confirmation says where the log ends."""
    first = member()
    assert first.wait(30)
    end = first.confirm(20)
    second = member()
    wait_for(lambda: first.confirm(20) == end)
    assert not second.leads
    with pytest.raises(NotLeading):
        second.confirm(20)
    first.close()
    assert second.wait(30)
    assert (second.confirm(20), second.term, first.leads) == (end, 1, False)
