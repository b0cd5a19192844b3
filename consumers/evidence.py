"""What pairing reads from ClickHouse and writes there: votes, answers, and how each row stands."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from ratchet.consumers.rules.pairing import Row
from ratchet.consumers.rules.votes import Answer, Kind, Vote
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.events import Feedback
from ratchet.schemas.rows import instant

TABLE = "pairs_log"
_COMPARED = ("status", "reason", "split", "user", "weight", "confidence", "votes", "version")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_vote(event: Feedback) -> Vote:
    """A feedback event as pairing sees it, the same as read back from the store."""
    at_us = (event.at - _EPOCH) // timedelta(microseconds=1)
    number = float(event.value) if isinstance(event.value, bool | int | float) else None
    text = event.value if isinstance(event.value, str) else ""
    kind = cast(Kind, event.kind)
    user, conversation = event.user or "", event.conversation_id or ""
    return Vote(event.id, at_us, kind, event.inference_id, event.compared_with, number, text, user, conversation)


class Evidence:
    """Votes and answers of one task out of ClickHouse."""

    def __init__(self, store: Store, task: str) -> None:
        """Bind a store to a task."""
        self._store = store
        self.task = task

    def stored(self, events: Sequence[Feedback]) -> set[str]:
        """Ids of those feedback events that are stored."""
        times = [event.at for event in events]
        first, last = instant(min(times)), instant(max(times))
        ids = [event.id for event in events]
        found = self._store.query("feedback_stored", task=self.task, first=first, last=last, ids=ids)
        return {str(row["id"]) for row in found}

    def votes_touching(self, ids: Collection[str]) -> list[Vote]:
        """Votes on these answers, as either side."""
        if not ids:
            return []
        return _votes(self._store.query("pair_votes_touching", task=self.task, ids=sorted(ids)))

    def votes_of(self, users: Collection[str]) -> list[Vote]:
        """All votes of these users, without text."""
        if not users:
            return []
        return _votes(self._store.query("pair_votes_of_users", task=self.task, users=sorted(users)))

    def votes_left(self, since: datetime, settled_s: float, most: int) -> list[Vote]:
        """Votes without a row, or with one that lacks an inference which is stored by now.

        Args:
            since: when the earliest vote was cast.
            settled_s: for how many seconds a vote must have been stored.
            most: how many at most.
        """
        settled_ms = int(settled_s * 1000)
        found = self._store.query(
            "pair_votes_left", task=self.task, since=instant(since), settled_ms=settled_ms, most=most
        )
        return _votes(found)

    def all_votes(self) -> list[Vote]:
        """Every vote of the task."""
        return _votes(self._store.query("pair_votes_all", task=self.task))

    def answers(self, ids: Collection[str]) -> dict[str, Answer]:
        """Those of these inferences that are stored."""
        if not ids:
            return {}
        return _answers(self._store.query("pair_answers", task=self.task, ids=sorted(ids)))

    def shadow_answers(self, ids: Collection[str]) -> dict[str, Answer]:
        """Those of these shadow answers that are stored."""
        if not ids:
            return {}
        return _answers(self._store.query("pair_shadow_answers", task=self.task, ids=sorted(ids)))

    def thumbed_answers(self, prompt_hashes: Collection[str]) -> dict[str, Answer]:
        """Answers to these prompts that have thumbs."""
        if not prompt_hashes:
            return {}
        found = self._store.query("pair_answers_of_prompts", task=self.task, prompt_hashes=sorted(prompt_hashes))
        return _answers(found)

    def voted_answers(self) -> dict[str, Answer]:
        """Every answer that a vote names."""
        return _answers(self._store.query("pair_answers_voted", task=self.task))

    def write(self, rows: Sequence[Row]) -> None:
        """Insert rows as `derive` gives them."""
        self._store.insert_rows(TABLE, [_stored(self.task, row) for row in rows])

    def states(self, sources: Sequence[str] = ()) -> dict[str, tuple[Any, ...]]:
        """What `state_of` says of every stored row (of these sources; none: of all), by pair id."""
        found = self._store.query("pair_states", task=self.task, sources=list(sources))
        return {str(row["pair_id"]): state_of(row) for row in found}


def state_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells two derivations of a pair apart (its texts follow from these)."""
    return tuple(row[name] for name in _COMPARED)


def _stored(task: str, row: Row) -> Row:
    at = _EPOCH + timedelta(microseconds=row["at_us"])
    return {name: value for name, value in row.items() if name != "at_us"} | {"task": task, "at": instant(at)}


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _votes(rows: list[dict[str, Any]]) -> list[Vote]:
    return [
        Vote(
            id=str(row["id"]),
            at_us=int(row["at_us"]),
            kind=row["kind"],
            inference_id=_text(row["inference_id"]),
            compared_with=_text(row["compared_with"]),
            number=row["number"],
            text=row["text"],
            user=row["user"],
            conversation_id=row["conversation_id"],
        )
        for row in rows
    ]


def _answers(rows: list[dict[str, Any]]) -> dict[str, Answer]:
    return {str(row["id"]): Answer(**(row | {"id": str(row["id"])})) for row in rows}
