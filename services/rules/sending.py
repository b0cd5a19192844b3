"""How events leave an app: what goes into one request, what the answer means, how long to wait before another try.

Values in, values out; `ratchet.services.sending` is the plumbing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import orjson

from ratchet.infra.kafka.backoff import backoff_s

LONGEST_WAIT_S = 300.0
"""However long a server asks us to stay away, we look again after this."""
TRIES = 8
"""Failures in a row after which an event that a server cannot digest alone is given up: about a minute."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One event on its way: checked, encoded, addressed."""

    id: str
    to: str
    """A path at the gateway, or a Kafka topic."""
    body: bytes
    key: str = ""
    """Kafka's key; nothing for HTTP."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch, by position; what stands in neither ``again`` nor ``refused`` was taken."""

    again: tuple[int, ...] = ()
    """Not taken now: to be sent again."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Never to be taken, and why."""
    problem: str = ""
    """Why there is something to be sent again, for people."""
    asked_s: float = 0.0
    """How long the server asked us to wait."""
    smaller: bool = False
    """Together they were too large: fewer at once may pass."""
    suspect: bool = False
    """The server broke down over them (500): one of them may be why."""


def fit(sizes: Iterable[int], most: int, most_bytes: int) -> int:
    """Count how many of the front go into one batch: at least one, if there is one.

    Args:
        sizes: bytes of each waiting event, in order.
        most: events.
        most_bytes: bytes, unless the first alone has more.
    """
    count = total = 0
    for size in sizes:
        if count and (count >= most or total + size > most_bytes):
            break
        count, total = count + 1, total + size
    return count


def read_answer(status: int, body: bytes, n: int, asked_s: float = 0.0) -> Outcome:
    """Say what a gateway's answer means for the ``n`` events that were sent.

    A receipt (``{"accepted", "errors": [{"index", "field", "reason"}]}``) speaks of each event; any
    other body, such as a proxy's, speaks of all of them.

    Args:
        status: the HTTP status.
        body: the answer's body.
        n: events in the request.
        asked_s: what `retry_after_s` read in the answer's headers.
    """
    everyone = tuple(range(n))
    if 200 <= status < 300:
        return Outcome()
    if status == 413 and n > 1:
        return Outcome(everyone, problem="413: too large together", smaller=True)
    named = _receipt(body, n)
    if status in (408, 429) or status >= 500:
        again = tuple(sorted(named)) if named is not None else everyone
        return Outcome(again, problem=f"{status}: {_sentence(body)}", asked_s=asked_s, suspect=status == 500)
    if status == 400 and named is not None:
        return Outcome(refused=named)
    return Outcome(refused=dict.fromkeys(everyone, f"{status}: {_sentence(body)}"))


def last_word(outcome: Outcome, n: int, failures: int) -> Outcome:
    """Give up an event over which alone the server breaks down again and again: it would hold up all after it.

    Args:
        outcome: of this try.
        n: events in it.
        failures: tries in a row, before this one, that did not bring everything over.
    """
    if outcome.suspect and n == 1 and failures >= TRIES:
        return Outcome(refused={0: f"{outcome.problem} ({failures + 1} tries)"})
    return outcome


def _receipt(body: bytes, n: int) -> dict[int, str] | None:
    """The events that a receipt names, with field and reason; None where the body is no receipt of ``n`` events."""
    try:
        value = orjson.loads(body)
        named = {int(one["index"]): f"{one['field']}: {one['reason']}" for one in value["errors"]}
        whole = int(value["accepted"]) + len(named) == n and all(0 <= index < n for index in named)
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return named if whole else None


def _sentence(body: bytes) -> str:
    """What an error's body says, in OpenAI's shape or any other, on one short line."""
    try:
        text = str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        text = body.decode(errors="replace")
    return " ".join(text.split())[:500]


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float:
    """Read how long a server asks us to stay away: ``retry-after-ms``, seconds, or a date; 0 where it does not say.

    Args:
        headers: the answer's headers, by lower-case name.
        now: the present instant, aware.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if text.replace(".", "", 1).isdecimal():
            return min(float(text) * unit, LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return 0.0
    seconds = (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, seconds), LONGEST_WAIT_S)


def wait_s(failures: int, asked_s: float, chance: float) -> float:
    """Say how long to wait before another try.

    Args:
        failures: tries in a row that did not bring everything over, at least 1.
        asked_s: how long the server asked us to wait; less it never is.
        chance: from 0 up to 1, drawn anew each time, so that many clients do not come back at once.

    Returns:
        Seconds: between half and the whole of a delay that doubles from 0.25 to 30, or up to a
        quarter more than what was asked for.
    """
    return max(backoff_s(failures) * (0.5 + chance / 2), asked_s * (1 + chance / 4))
