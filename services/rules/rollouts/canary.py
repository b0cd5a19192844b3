"""Whether two answers to one greedy question come from the same weights. Pure.

Text alone does not say: another batch or another card rounds otherwise, and a near tie becomes another word, behind
which everything differs; while a short answer in JSON begins alike whatever was learned. So the tokens'
log-probabilities are compared for as long as the answers run together.
"""

from __future__ import annotations

from ratchet.infra.models.answer import Answer

TOLERANCE = 0.5
"""Nats. Rounding of bfloat16 between batches and cards moves a token's log-probability by a tenth or so."""


def difference(expected: Answer, found: Answer, tolerance: float = TOLERANCE) -> str | None:
    """How an answer differs from the one expected by more than rounding explains; None where it does not.

    Where they part, each one's token must be nearly as likely to the other: then it was a tie, and nothing behind it
    counts. Without log-probabilities of both the texts must be equal.
    """
    if not expected.choices or not found.choices:
        return None if expected.text == found.text else f"it is {found.text[:80]!r}, not {expected.text[:80]!r}"
    for place, (one, other) in enumerate(zip(expected.choices, found.choices, strict=False), 1):
        if one.token == other.token:
            if abs(one.logprob - other.logprob) > tolerance:
                return (
                    f"token {place}, {one.token!r}, has log-probability {other.logprob:.2f}, not {one.logprob:.2f} "
                    f"(allowed: {tolerance:g} apart)"
                )
            continue
        unlikely = float("-inf")
        near = (
            one.logprob - other.likeliest.get(one.token, unlikely),
            other.logprob - one.likeliest.get(other.token, unlikely),
        )
        if max(abs(gap) for gap in near) > tolerance:
            return f"token {place} is {other.token!r}, not {one.token!r}"
        return None
    return None
