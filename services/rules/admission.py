"""Who may do what, and how often: values in, values out.

The limit is a token bucket: a key may send a minute's worth at once, and gets it back evenly.
Over any t seconds it sends at most ``per_minute × (1 + t / 60)`` requests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ratchet.schemas.keys import DEFAULT_TENANT, Key, KeyScope

_BEARER = b"bearer "


class Caller(NamedTuple):
    """Who sent a request: a key's tenant, or anyone on this machine while there are no keys."""

    tenant: str
    bound: bool
    """Whether the tenant is a key's, so that nothing may be said in another's name."""
    name: str = ""
    """The key's, for people."""


ANYONE = Caller(DEFAULT_TENANT, bound=False)


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a request is not admitted; the sentence never has any part of what was sent as a key."""

    status: int
    code: str
    message: str
    challenge: str | None = None
    """For ``WWW-Authenticate`` (RFC 6750)."""


class Bucket(NamedTuple):
    """A key's tokens at an instant of a clock that only grows."""

    tokens: float
    at: float


def identify(keys: Mapping[str, Key], authorization: bytes | None, scope: KeyScope) -> Key | Denial:
    """Find the key that an ``Authorization`` header carries and check what it may do.

    Args:
        keys: every key by the SHA-256 of its secret, the revoked too.
        authorization: the header's value, None for none.
        scope: what the request needs.

    Returns:
        The key, or the denial: 401 without a valid key, 403 without the scope.
    """
    if not authorization:
        return _unknown("No API key was sent; allowed: Authorization: Bearer rk_…")
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return _unknown("Authorization: allowed: Bearer rk_…")
    key = keys.get(hashlib.sha256(authorization[len(_BEARER) :].strip()).hexdigest())
    if key is None:
        return _unknown("Incorrect API key; `ratchet keys create` makes one")
    if key.revoked_at is not None:
        return _unknown(f"The API key {key.id} was revoked; `ratchet keys create` makes another")
    if scope not in key.scopes:
        return Denial(
            403,
            "missing_scope",
            f"The API key {key.id} lacks the scope {scope!r}; it has: {', '.join(key.scopes)}",
            f'Bearer error="insufficient_scope", scope="{scope}"',
        )
    return key


def _unknown(message: str) -> Denial:
    return Denial(401, "invalid_api_key", message, "Bearer")


def take(bucket: Bucket | None, per_minute: int, now: float) -> tuple[Bucket, float]:
    """Take one token.

    Args:
        bucket: the key's bucket after its last request; None: it has sent none yet.
        per_minute: requests a minute; also the most that can be saved up.
        now: seconds, of a clock that only grows.

    Returns:
        The bucket from now on, and 0.0 where the request is admitted, else the seconds until
        a token is there. A refused request takes nothing.
    """
    if bucket is None:
        bucket = Bucket(per_minute, now)
    tokens = min(float(per_minute), bucket.tokens + max(0.0, now - bucket.at) * per_minute / 60)
    at = max(now, bucket.at)
    if tokens >= 1:
        return Bucket(tokens - 1, at), 0.0
    return Bucket(tokens, at), (1 - tokens) * 60 / per_minute
