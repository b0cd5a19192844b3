"""Writing tables: from the one in force, one at a time, under an epoch of one's own; whoever lost the race adopts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import BrokerError, NotLeading
from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.services.controller.known import Known
from ratchet.services.controller.lead import Alone
from ratchet.services.controller.writing import Writer
from ratchet.services.rules.rollouts.fencing import mended
from ratchet.services.rules.rollouts.tables import refuse

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def event_id(name: str) -> str:
    """A UUIDv7 of this name."""
    return derived_id(int(AT.timestamp() * 1000), name)


def table(name: str, base: Rollout | None, epoch: int = 0) -> Rollout:
    """Some next table."""
    return refuse("support", base, AT, event_id(name), "ada", name).model_copy(update={"epoch": epoch})


async def test_each_table_is_written_under_an_epoch_above_all_that_were_read() -> None:
    """And only from the table in force: what was derived from another one is not written."""
    known = Known()
    publisher = MemoryPublisher(follow=known.receive)
    writer = Writer(known, publisher, Alone())
    before = table("before", None, epoch=6)
    known.receive(before)
    known.read()
    first = await writer.write(table("first", before), before)
    assert first is not None
    assert (first.epoch, first.version) == (7, 2)
    assert await writer.write(table("late", before), before) is None
    assert publisher.events == [first]
    assert known.states["support"] == first


async def test_a_table_that_came_second_is_given_up_and_the_topic_mended() -> None:
    """A rival's table of the same version lies before it: that one is in force, and the instruction is still open."""
    known = Known()
    writer = Writer(known, MemoryPublisher(), Alone())
    asked = Operator(id=event_id("asked"), at=AT, task="support", verb="pause", who="ada")
    first, rival = table("first", None), table("rival", None)
    known.receive(asked)
    mine = await writer.write(first.model_copy(update={"operator_seen": asked.id}), None)
    assert mine is not None
    assert known.states["support"] == mine, "it counts until the log says otherwise"
    with pytest.raises(BrokerError, match="version 1 was written and cannot be read back yet"):
        await writer.write(table("second", mine), mine)
    known.receive(rival)
    known.receive(mine)
    known.read()
    assert (known.states["support"], known.unread("support"), list(known.asked)) == (rival, None, [asked])
    again = mended(known.logs["support"], AT, event_id("again"))
    assert again is not None
    assert (again.action, again.version, again.stable) == ("confirm", 2, rival.stable)
    known.receive(mine.model_copy(update={"id": event_id("other"), "version": 2}))
    known.read()
    assert list(known.asked) == [], "a table in force answers it"


async def test_a_table_that_the_topic_lost_is_published_again() -> None:
    """The broker took it and came back without it."""
    known, publisher = Known(), MemoryPublisher()
    writer = Writer(known, publisher, Alone())
    mine = await writer.write(table("first", None), None)
    with pytest.raises(BrokerError):
        await writer.settle("support")
    assert publisher.events == [mine, mine]
    known.receive(publisher.events[0])
    await writer.settle("support")
    assert len(publisher.events) == 2


class Expelled(Alone):
    """A controller that Kafka gave no lead."""

    def confirm(self, timeout_s: float) -> None:
        """Another one leads."""
        raise NotLeading("another process leads ratchet.rollout")


async def test_who_does_not_lead_or_was_succeeded_writes_nothing() -> None:
    """Asked at the moment of writing, and told by a later epoch in the log."""
    known, publisher = Known(), MemoryPublisher()
    assert await Writer(known, publisher, Expelled()).write(table("one", None), None) is None
    writer = Writer(known, publisher, Alone())
    first = await writer.write(table("one", None), None)
    assert first is not None
    known.receive(first)
    later = table("later", first, epoch=2)
    known.receive(later)
    assert await writer.write(table("two", later), later) is None
    assert publisher.events == [first]
