"""Admission: a table of who is let in, and a bucket that never gives more than it should."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.keys import Key
from ratchet.services.rules.admission import Bucket, Denial, identify, take

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def key(secret: str, **changes: Any) -> Key:
    """A key of this secret."""
    id = f"{len(secret):08x}"
    fields = {"id": id, "name": "a", "tenant": "t", "scopes": ["infer", "feedback"], "created_at": NOW}
    return Key.model_validate(fields | {"sha256": hashlib.sha256(secret.encode()).hexdigest()} | changes)


KEYS = {
    one.sha256: one for one in (key("rk_good"), key("rk_revoked", revoked_at=NOW), key("rk_admin_", scopes=["admin"]))
}


@pytest.mark.parametrize("header", [b"Bearer rk_good", b"bearer rk_good", b"BEARER  rk_good "])
@pytest.mark.parametrize("scope", ["infer", "feedback"])
def test_a_key_with_the_scope_is_let_in(header: bytes, scope: Any) -> None:
    """The scheme's case and spaces do not matter (RFC 7235)."""
    found = identify(KEYS, header, scope)
    assert isinstance(found, Key)
    assert found.tenant == "t"


@pytest.mark.parametrize(
    ("header", "scope", "status", "code", "says"),
    [
        (None, "infer", 401, "invalid_api_key", "No API key was sent"),
        (b"", "infer", 401, "invalid_api_key", "No API key was sent"),
        (b"rk_good", "infer", 401, "invalid_api_key", "allowed: Bearer rk_"),
        (b"Basic cmtfZ29vZA==", "infer", 401, "invalid_api_key", "allowed: Bearer rk_"),
        (b"Bearer ", "infer", 401, "invalid_api_key", "Incorrect API key"),
        (b"Bearer rk_goo", "infer", 401, "invalid_api_key", "Incorrect API key"),
        (b"Bearer rk_good2", "infer", 401, "invalid_api_key", "Incorrect API key"),
        (b"Bearer \xff\x00", "infer", 401, "invalid_api_key", "Incorrect API key"),
        (b"Bearer rk_revoked", "infer", 401, "invalid_api_key", "was revoked"),
        (b"Bearer rk_revoked", "admin", 401, "invalid_api_key", "was revoked"),
        (b"Bearer rk_good", "ingest", 403, "missing_scope", "lacks the scope 'ingest'; it has: infer, feedback"),
        (b"Bearer rk_admin_", "infer", 403, "missing_scope", "lacks the scope 'infer'; it has: admin"),
    ],
)
def test_who_is_not_let_in(header: bytes | None, scope: Any, status: int, code: str, says: str) -> None:
    """Each denial has its status, code and reason, and no part of what was sent as a key."""
    found = identify(KEYS, header, scope)
    assert isinstance(found, Denial)
    assert (found.status, found.code) == (status, code)
    assert says in found.message
    assert found.challenge is not None
    assert "rk_g" not in found.message + found.challenge


def test_the_hash_itself_is_no_key() -> None:
    """Who reads the key file cannot use what is in it."""
    assert isinstance(identify(KEYS, b"Bearer " + next(iter(KEYS)).encode(), "infer"), Denial)


@given(
    per_minute=st.integers(1, 1000),
    gaps=st.lists(st.one_of(st.just(0.0), st.floats(0, 200, allow_subnormal=False)), max_size=200),
)
def test_the_bucket_never_gives_more_than_burst_and_rate(per_minute: int, gaps: list[float]) -> None:
    """Over every stretch of time at most the burst plus the rate times the seconds are admitted."""
    bucket, now, admitted = None, 1000.0, []
    for gap in gaps:
        now += gap
        bucket, wait_s = take(bucket, per_minute, now)
        assert 0 <= bucket.tokens <= per_minute
        if wait_s == 0:
            admitted.append(now)
        else:
            assert 0 < wait_s <= 60 / per_minute + 1e-9
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            seconds = admitted[last] - start
            assert last - first + 1 <= per_minute * (1 + seconds / 60) + 1e-6


@given(per_minute=st.integers(1, 1000), start=st.floats(0, 1e6))
def test_who_waits_as_told_is_admitted(per_minute: int, start: float) -> None:
    """After the seconds that a refusal names (to the millisecond, as they are sent) a token is there."""
    _, wait_s = take(Bucket(0.0, start), per_minute, start)
    _, again = take(Bucket(0.0, start), per_minute, start + wait_s + 0.001)
    assert again == 0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    """Time that goes back fills no bucket, and the time that passed twice counts once."""
    bucket, _ = take(Bucket(1.0, 100.0), 60, 50.0)
    assert bucket == Bucket(0.0, 100.0)


def test_a_lowered_limit_holds_at_once() -> None:
    """What was saved up under a higher limit is cut to the new one."""
    bucket, _ = take(Bucket(600.0, 0.0), 2, 0.0)
    assert bucket.tokens == 1.0
