"""What a rebuild found, table by table, and whether ClickHouse may be exchanged for it."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ratchet.schemas.errors import RebuildError
from ratchet.schemas.topics import TOPICS, Partition

_BRIEF = frozenset(topic.name for topic in TOPICS if topic.brief)
_POSITION = re.compile(r"(?P<topic>[^:@]+)(?::(?P<partition>\d+)(?::(?P<offset>\d+))?)?(?:@(?P<since>.+))?")


@dataclass(frozen=True)
class Compared:
    """One documented view: how many events ClickHouse had and has in the rebuilt one.

    ``older`` were in ClickHouse alone, from ``first`` to ``last``; ``topics`` carry such events (where
    none does, they are derived, or written by the trainers, and always kept).
    """

    view: str
    before: int
    after: int
    older: int = 0
    first: datetime | None = None
    last: datetime | None = None
    topics: tuple[str, ...] = ()


def unexpected(lost: Sequence[Compared]) -> list[Compared]:
    """Those views whose rows should have come back; what a brief topic let go of is carried over without a question."""
    return [one for one in lost if not one.topics or not _BRIEF.issuperset(one.topics)]


def refusal(lost: Sequence[Compared], held: Mapping[Partition, range]) -> str:
    """Why the rebuilt tables must not take the place of those that are there.

    Args:
        lost: the views of which some events are in ClickHouse alone.
        held: the offsets that the topics hold.
    """
    what = "; ".join(
        f"{one.older} of {one.before} in {one.view}"
        + (f" ({one.first:%Y-%m-%dT%H:%M:%SZ} to {one.last:%Y-%m-%dT%H:%M:%SZ})" if one.first and one.last else "")
        + f", because {' and '.join(_holds(topic, held) for topic in one.topics)}"
        for one in lost
    )
    return (
        f"nothing was changed: some rows are in ClickHouse alone: {what}. "
        "--keep-older carries them over into the rebuilt tables"
    )


def _holds(topic: str, held: Mapping[Partition, range]) -> str:
    mine = {number: offsets for (name, number), offsets in sorted(held.items()) if name == topic}
    if not any(mine.values()):
        return f"{topic} is empty"
    firsts = {number: offsets.start for number, offsets in mine.items() if offsets.start}
    if firsts:
        listed = ", ".join(f"{first} (partition {number})" for number, first in firsts.items())
        return f"{topic} begins at offset {listed}"
    compacted = any(one.compacted for one in TOPICS if one.name == topic)
    return f"{topic} is compacted" if compacted else f"{topic} does not hold them"


@dataclass(frozen=True)
class Position:
    """From where to read again: one partition of a topic or all of them, from an offset, a time, or the beginning."""

    text: str
    topic: str
    partition: int | None = None
    offset: int | None = None
    since: datetime | None = None

    def covers(self, partition: Partition) -> bool:
        """Whether that partition is meant."""
        return partition[0] == self.topic and self.partition in (None, partition[1])


def position(text: str, topics: Collection[str]) -> Position:
    """Read ``TOPIC``, ``TOPIC:PARTITION``, ``TOPIC:PARTITION:OFFSET``, ``TOPIC@TIME`` or ``TOPIC:PARTITION@TIME``.

    Args:
        text: what a person wrote.
        topics: those that end up in ClickHouse.

    Raises:
        RebuildError: it is none of these, with what is allowed.
    """
    found = _POSITION.fullmatch(text)
    if found is None or (found["offset"] is not None and found["since"] is not None):
        raise RebuildError(f"{text!r} is no position; allowed: TOPIC[:PARTITION[:OFFSET]] or TOPIC[:PARTITION]@TIME")
    if found["topic"] not in topics:
        raise RebuildError(f"{text!r}: no topic {found['topic']!r} ends up in ClickHouse; allowed: {', '.join(topics)}")
    since = None
    if found["since"] is not None:
        try:
            since = datetime.fromisoformat(found["since"])
        except ValueError:
            since = None
        if since is None or since.tzinfo is None:
            raise RebuildError(
                f"{text!r}: {found['since']!r} is no time; allowed: RFC 3339 with a zone, e.g. 2026-11-01T12:00:00Z"
            )
    partition, offset = (int(found[name]) if found[name] is not None else None for name in ("partition", "offset"))
    return Position(text, found["topic"], partition, offset, since)
