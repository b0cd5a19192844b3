"""Two controllers that both believe they lead: every reader holds the same table, and no transition happens twice."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.schemas.ids import derived_id
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.rollouts.fencing import Log, mended, read, succeeded
from ratchet.services.rules.rollouts.tables import refuse

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
MS = int(AT.timestamp() * 1000)


def followed(records: list[Rollout]) -> tuple[Log, list[Rollout]]:
    """What a reader of these records holds in the end, and what took effect for it, in order."""
    log, held = Log(), []
    for record in records:
        before, log = log, read(log, record)
        if log.held is not before.held:
            assert log.held is not None
            held.append(log.held)
    return log, held


@dataclass
class Writer:
    """A controller as far as its writing goes: what it has read, and a table on its way to the topic."""

    name: str
    log: Log = field(default_factory=Log)
    position: int = 0
    epoch: int = 0
    on_its_way: Rollout | None = None
    unread: str | None = None

    def read(self, topic: list[Rollout], upto: int) -> None:
        """Follow the topic to an offset."""
        while self.position < min(upto, len(topic)):
            record = topic[self.position]
            self.log = read(self.log, record)
            self.position += 1
            self.unread = None if record.id == self.unread else self.unread

    def write(self, number: int, derived: dict[str, str | None]) -> None:
        """Send the next table, derived from the one in force, once the last one was read back."""
        if self.on_its_way or self.unread or self.epoch == 0 or succeeded(self.log, self.epoch):
            return
        id = derived_id(MS, self.name, str(number))
        table = refuse("support", self.log.held, AT, id, self.name, "any transition")
        self.on_its_way = table.model_copy(update={"epoch": self.epoch})
        self.unread = id
        derived[id] = self.log.held.id if self.log.held else None

    def lands(self, topic: list[Rollout]) -> None:
        """The broker appends what was on its way, however late."""
        if self.on_its_way:
            topic.append(self.on_its_way)
            self.on_its_way = None

    def takes_over(self, topic: list[Rollout]) -> None:
        """Read to the end and lead from there."""
        self.read(topic, len(topic))
        self.epoch = self.log.epoch + 1


WHAT = st.sampled_from(["read", "write", "write", "land", "lead"])
STEPS = st.lists(st.tuples(WHAT, st.integers(0, 1), st.integers(1, 3)), min_size=4, max_size=30)


@settings(max_examples=120)
@given(STEPS, st.integers(0, 1), st.data())
def test_every_interleaving_ends_in_one_state(
    steps: list[tuple[str, int, int]], last: int, data: st.DataObject
) -> None:
    """Reads, writes, late deliveries and takeovers in any order: one chain of transitions, for late readers too."""
    topic: list[Rollout] = []
    derived: dict[str, str | None] = {}
    writers = [Writer("a", epoch=1), Writer("b", epoch=1)]
    for number, (what, who, n) in enumerate(steps):
        one = writers[who]
        match what:
            case "read":
                one.read(topic, one.position + n)
            case "write":
                one.write(number, derived)
            case "land":
                one.lands(topic)
            case "lead":
                one.takes_over(topic)
    for one in writers:
        one.lands(topic)
    leader = writers[last]
    leader.takes_over(topic)
    while mending := mended(leader.log, AT, derived_id(MS, "mended", str(len(topic)))):
        assert len(topic) < 200, "mending comes to an end"
        if mending.action == "confirm":
            derived[mending.id] = leader.log.held.id if leader.log.held else None
            mending = mending.model_copy(update={"epoch": leader.epoch})
        topic.append(mending)
        leader.read(topic, len(topic))
    log, held = followed(topic)
    assert leader.log.held == log.held
    assert [derived[table.id] for table in held] == [None, *(table.id for table in held)][: len(held)]
    assert [table.version for table in held] == list(range(1, len(held) + 1))
    if topic:
        kept = [record for record in topic[:-1] if data.draw(st.booleans())]
        late, _ = followed([*kept, topic[-1]])
        assert late.held == log.held


@given(STEPS)
def test_a_single_controller_is_never_mended(steps: list[tuple[str, int, int]]) -> None:
    """Where one writes, nothing is confirmed and nothing published again, restarts included."""
    topic: list[Rollout] = []
    one = Writer("a")
    one.takes_over(topic)
    for number, (what, _, _) in enumerate(steps):
        if what == "write":
            one.write(number, {})
            one.lands(topic)
        elif what == "lead":
            one = Writer("a")
        one.takes_over(topic)
    assert mended(one.log, AT, derived_id(MS, "m")) is None


def test_a_topic_that_was_seeded_behind_gets_its_table_back_as_it_was() -> None:
    """The embedded broker comes back empty and ClickHouse knew an older table: the newer one, not a newer version."""
    first = refuse("support", None, AT, derived_id(MS, "1"), "ada", "one")
    second = refuse("support", first, AT, derived_id(MS, "2"), "ada", "two")
    log, _ = followed([first, second, first])
    assert mended(log, AT, derived_id(MS, "3")) == second
    assert mended(read(log, second), AT, derived_id(MS, "3")) is None
