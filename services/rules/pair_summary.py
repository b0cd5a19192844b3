"""What became of the feedback, as the command and the demo tell it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def summary(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up rows of the question ``pair_counts``: ``{built, dropped: {reason: n}}``."""
    built, dropped = 0, Counter[str]()
    for row in rows:
        if row["status"] == "built":
            built += row["n"]
        elif row["status"] == "dropped":
            dropped[row["reason"]] += row["n"]
    return {"built": built, "dropped": dict(dropped)}
