"""What goes into one request, what an answer means, how long to wait."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.services.rules.sending import LONGEST_WAIT_S, TRIES, fit, last_word, read_answer, retry_after_s, wait_s

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@given(st.lists(st.integers(1, 1000)), st.integers(1, 50), st.integers(1, 2000))
def test_batches_are_full_but_never_over(sizes: list[int], most: int, most_bytes: int) -> None:
    """A batch is within both bounds unless one event alone is larger, and the next event would not have fitted."""
    count = fit(sizes, most, most_bytes)
    assert count <= min(most, len(sizes))
    assert (count > 0) == bool(sizes)
    assert count <= 1 or sum(sizes[:count]) <= most_bytes
    if 0 < count < len(sizes):
        assert count == most or sum(sizes[: count + 1]) > most_bytes


@given(st.integers(100, 599), st.binary(max_size=40), st.integers(1, 20))
def test_every_event_has_one_fate(status: int, body: bytes, n: int) -> None:
    """Whatever a server or a proxy answers, no event is both refused and sent again, and only 2xx takes all of them."""
    outcome = read_answer(status, body, n)
    assert set(outcome.again).isdisjoint(outcome.refused)
    untaken = set(outcome.again) | outcome.refused.keys()
    assert untaken == (set() if 200 <= status < 300 else set(range(n)))


@given(st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
def test_a_receipt_speaks_of_each_event(case: tuple[int, set[int]]) -> None:
    """Of a partial answer the good ones are kept: 400 refuses those named, 503 asks for those named again."""
    n, bad = case
    errors = [{"index": index, "field": "id", "reason": "no"} for index in bad]
    body = orjson.dumps({"accepted": n - len(bad), "errors": errors})
    assert read_answer(400, body, n).refused == dict.fromkeys(bad, "id: no")
    assert read_answer(400, body, n).again == ()
    assert read_answer(503, body, n).again == tuple(sorted(bad))
    assert set(read_answer(400, body, n + 1).refused) == set(range(n + 1))  # a receipt of other events is none


@pytest.mark.parametrize(
    ("status", "n", "again", "refused"),
    [(202, 3, 0, 0), (429, 3, 3, 0), (408, 2, 2, 0), (502, 2, 2, 0), (401, 2, 0, 2), (404, 1, 0, 1), (413, 1, 0, 1)],
)
def test_what_is_sent_again(status: int, n: int, again: int, refused: int) -> None:
    """Overload and failures are worth another try; a wrong key, address or size never gets better."""
    outcome = read_answer(status, orjson.dumps({"error": {"message": "why"}}), n)
    assert (len(outcome.again), len(outcome.refused)) == (again, refused)
    assert outcome.problem in ("", f"{status}: why")
    assert set(outcome.refused.values()) <= {f"{status}: why"}


def test_too_large_together_is_tried_in_parts() -> None:
    """413 for several events asks for smaller batches."""
    assert read_answer(413, b"", 4).smaller
    assert len(read_answer(413, b"", 4).again) == 4


def test_an_event_that_no_server_digests_is_given_up() -> None:
    """Only a breakdown (500) over one event alone, again and again, ends in refusal; overload never does."""
    broken, busy = read_answer(500, b"oops", 1), read_answer(503, b"busy", 1)
    assert last_word(broken, 1, TRIES - 1) is broken
    assert last_word(broken, 1, TRIES).refused == {0: f"500: oops ({TRIES + 1} tries)"}
    assert last_word(broken, 2, 100) is broken
    assert last_word(busy, 1, 100) is busy


def test_retry_after_in_every_form() -> None:
    """Milliseconds, seconds and dates are read, nonsense asks for nothing, and nobody is sent away for ever."""
    assert retry_after_s({"retry-after": "2"}, NOW) == 2
    assert retry_after_s({"retry-after": "2", "retry-after-ms": "1500"}, NOW) == 1.5
    assert retry_after_s({"retry-after": format_datetime(NOW + timedelta(seconds=90), usegmt=True)}, NOW) == 90
    assert retry_after_s({"retry-after": format_datetime(NOW - timedelta(seconds=90), usegmt=True)}, NOW) == 0
    assert retry_after_s({"retry-after": "86400"}, NOW) == LONGEST_WAIT_S
    for nonsense in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "nan"}):
        assert retry_after_s(nonsense, NOW) == 0


@given(st.integers(1, 100), st.floats(0, LONGEST_WAIT_S), st.floats(0, 1, exclude_max=True))
def test_waits_grow_are_spread_and_are_never_less_than_asked(failures: int, asked: float, chance: float) -> None:
    """A wait lies between the half and the whole of its doubling delay, or from what was asked up to a quarter more."""
    waited = wait_s(failures, asked, chance)
    delay = min(30.0, 0.25 * 2 ** min(failures - 1, 30))
    assert waited >= max(asked, delay / 2)
    assert waited <= max(asked * 1.25, delay)
