"""The one place that reads the wall clock and the system's randomness."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

from ratchet.schemas.ids import uuid7


def now() -> datetime:
    """The present instant in UTC, with microseconds."""
    return datetime.now(UTC)


def new_id() -> str:
    """A fresh UUIDv7."""
    return uuid7(time.time_ns() // 1_000_000, os.urandom(10))
