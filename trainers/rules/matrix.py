"""The evaluation matrix: every metric of base, stable and candidate, and how the candidate differs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ratchet.trainers.rules.measures import Observed, difference, figure, kind_of

SIDES = ("base", "stable", "candidate")
Table = Mapping[str, Mapping[str, Observed]]
"""By side and metric."""


def matrix(models: Mapping[str, str], observed: Table, seed: int, confidence: float = 0.95) -> dict[str, Any]:
    """Put the figures of all sides beside each other.

    Args:
        models: what is on each side that was measured, by side.
        observed: what was found of it.
        seed: of the bootstrap.
        confidence: of every interval, two-sided.

    Returns:
        ``models``, ``against`` (the side that the differences are to: stable, or base where nothing is stable),
        ``confidence``, ``seed`` and, by metric, ``kind``, each side's figure, ``difference`` and ``errors`` by side.
    """
    against = "stable" if "stable" in models else "base"
    names = list(dict.fromkeys(metric for side in SIDES for metric in observed.get(side, {})))
    metrics = {}
    for metric in names:
        sides = {side: observed[side][metric] for side in SIDES if metric in observed.get(side, {})}
        kind = kind_of(metric, *sides.values())
        row: dict[str, Any] = {"kind": kind, "errors": {side: one.error for side, one in sides.items() if one.error}}
        try:
            row |= {side: figure(kind, one, seed, confidence).as_json() for side, one in sides.items() if not one.error}
            if "candidate" in row and against in row:
                gap = difference(kind, sides["candidate"], sides[against], seed, confidence)
                row["difference"] = gap.as_json()
        except ValueError as error:
            row["errors"] = {"": str(error)}
        metrics[metric] = row
    return {
        "models": dict(models),
        "against": against,
        "confidence": confidence,
        "seed": seed,
        "metrics": metrics,
    }
