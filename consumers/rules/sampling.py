"""Which answers a judge reads: decided by a hash of the id, so that every consumer and every rerun agree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_WHOLE = 2**64


@dataclass(frozen=True, slots=True)
class Draw:
    """Whether an answer is in the sample, and how likely that was (weight its score by 1/probability)."""

    sampled: bool
    probability: float


def position(inference_id: str, purpose: str = "judge") -> float:
    """Where an id falls in [0, 1): uniform over ids, the same on every machine, independent between purposes."""
    digest = hashlib.sha256(f"{purpose}\x1f{inference_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / _WHOLE


def draw(inference_id: str, fraction: float) -> Draw:
    """Decide whether to judge one answer.

    Args:
        inference_id: id of the production request; a shadow answer passes its production request's, so
            that both answers to one request are judged or neither.
        fraction: share of the answer's stratum to judge, 0–1; 1 judges the stratum whole.

    Returns:
        The draw with its inclusion probability, ``fraction``.
    """
    return Draw(position(inference_id) < fraction, fraction)
