"""What an evaluation found, and what of it decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What an evaluation found.

    ``figures`` is the manifest's ``evaluation``; ``rejected`` why the adapter must not be rolled out, None where
    nothing speaks against it.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    rejected: str | None = None


def of_reward_model(accuracy: Mapping[str, Any] | None) -> Evaluated:
    """Say whether a reward model may reward: it is neither loaded nor asked, since it answers nothing.

    Args:
        accuracy: how often it rewards the better answer of held-out pairs more, with its 95% interval; None: there
            were none.
    """
    if accuracy is None:
        return Evaluated(rejected="no held-out pairs: nobody knows whether it tells better answers from worse")
    why = None
    if accuracy["low"] <= 0.5:
        why = (
            f"it rewards the better answer of {accuracy['k']} of {accuracy['n']} held-out pairs, which may be chance "
            f"(95% interval {accuracy['low']:.1%} to {accuracy['high']:.1%})"
        )
    return Evaluated({"reward_accuracy": dict(accuracy)}, rejected=why)
