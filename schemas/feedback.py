"""What the value of each kind of feedback may be."""

from __future__ import annotations


def feedback_problem(kind: str, value: object, compared_with: str | None) -> str | None:
    """Say why ``value`` does not fit ``kind``, or None where it does."""
    if kind in ("thumb", "outcome"):
        fits, allowed = isinstance(value, bool), "true or false"
    elif kind == "rating":
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, allowed = number and 0 <= float(str(value)) <= 1, "a number from 0 to 1"
    elif kind == "preference":
        fits, allowed = value in ("this", "other", "tie"), "'this', 'other' or 'tie'"
    else:
        fits, allowed = isinstance(value, str) and bool(value), "a text that is not empty"
    if not fits:
        return f"value {value!r} does not fit kind {kind!r}; allowed: {allowed}"
    if (kind == "preference") != (compared_with is not None):
        return "compared_with goes with kind 'preference' and only with it"
    return None
