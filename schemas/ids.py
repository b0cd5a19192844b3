"""Identifiers: UUIDv7 for events, derived UUIDv7 for repeatable ones, and adapter names."""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Annotated

from pydantic import StringConstraints

BASE = "base"
"""The name under which events and headers report the base model without an adapter."""

ADAPTER_NAME = re.compile(r"^(?P<task>[a-z0-9][a-z0-9-]{0,62})@v(?P<number>[1-9][0-9]{0,8})-(?P<sha8>[0-9a-f]{8})$")
TASK_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


def uuid7(unix_ms: int, randomness: bytes) -> str:
    """Make a UUIDv7 (RFC 9562, 5.7) from a time and 10 bytes.

    Args:
        unix_ms: milliseconds since 1970, 48 bits.
        randomness: at least 10 bytes; the version and variant bits are overwritten.

    Returns:
        The id in its 36-character text form.
    """
    value = (unix_ms & (2**48 - 1)) << 80 | int.from_bytes(randomness[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    digits = f"{value:032x}"  # a third of the time of str(UUID(int=value))
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def unix_ms(id: str) -> int:
    """The time that a UUIDv7 was made at, as the id says: milliseconds since 1970."""
    return uuid.UUID(id).int >> 80


def derived_id(unix_ms: int, *parts: str) -> str:
    """Make the UUIDv7 that the same time and parts always give.

    A consumer that handles an event twice derives the same id twice, so the row it
    writes replaces itself instead of counting double.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return uuid7(unix_ms, digest)


def span_inference_id(trace_id: str, span_id: str, start_ns: int) -> str:
    """Make the id of the inference that a span becomes, so that an app can send feedback on it.

    Args:
        trace_id: 32 lower-case hex digits.
        span_id: 16 lower-case hex digits.
        start_ns: the span's start in nanoseconds since 1970.
    """
    return derived_id(start_ns // 1_000_000, "otlp", trace_id, span_id)


def hash_user(user: str) -> str:
    """Hash an end user's name as events store it: sha256, the first 32 hex digits."""
    return hashlib.sha256(user.encode()).hexdigest()[:32]


def adapter_name(task: str, number: int, weights_sha256: str) -> str:
    """Name an adapter after its weights: ``task@vN-<first 8 hex digits>``. Names are never reused."""
    name = f"{task}@v{number}-{weights_sha256[:8]}"
    if not ADAPTER_NAME.match(name):
        raise ValueError(f"adapter name {name!r}; allowed: <task>@v<number>-<8 hex digits>")
    return name


# Patterns, not Python functions: every event of the hot path is held to them by pydantic's own core.
_EVENT_ID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-7[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}$"
_ADAPTER = rf"^({BASE}|[a-z0-9][a-z0-9-]{{0,62}}@v[1-9][0-9]{{0,8}}-[0-9a-f]{{8}})$"
EventId = Annotated[str, StringConstraints(pattern=_EVENT_ID, to_lower=True)]
AdapterName = Annotated[str, StringConstraints(pattern=_ADAPTER)]
TaskName = Annotated[str, StringConstraints(pattern=TASK_NAME.pattern)]
ALLOWED = {
    _EVENT_ID: "a UUIDv7 in text form",
    _ADAPTER: "'base' or <task>@v<number>-<8 hex digits>",
    TASK_NAME.pattern: "lower-case letters, digits and hyphens, at most 63",
}
"""What each pattern means, for messages."""
