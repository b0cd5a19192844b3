"""The queue behind the client, with a link that does what the test says."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import pytest

from ratchet.services.rules.sending import Outcome, Parcel, fit
from ratchet.services.sending.outbox import BATCH_EVENTS, Outbox, Rejected

PATIENCE_S = 10.0


class ScriptedLink:
    """Waits for an outcome for each try; keeps what it was given."""

    def __init__(self) -> None:
        self.batches: queue.Queue[list[str]] = queue.Queue()
        self.outcomes: queue.Queue[Outcome] = queue.Queue()
        self.closed = threading.Event()

    def fit(self, waiting: deque[Parcel], most: int) -> int:
        return fit((len(parcel.body) for parcel in waiting), most, 10**6)

    def deliver(self, batch: Sequence[Parcel]) -> Outcome:
        self.batches.put([parcel.id for parcel in batch])
        return self.outcomes.get(timeout=PATIENCE_S)

    def close(self) -> None:
        self.closed.set()

    def tried(self) -> list[str]:
        return self.batches.get(timeout=PATIENCE_S)


Make = Callable[..., tuple[Outbox, ScriptedLink]]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes queues with a link of their own; all are closed at the end."""
    made: list[tuple[Outbox, ScriptedLink]] = []

    def build(**options: object) -> tuple[Outbox, ScriptedLink]:
        link = ScriptedLink()
        given = {
            "queue_events": 5,
            "queue_bytes": 1000,
            "linger_s": 0.0,
            "exit_timeout_s": 0.0,
            "on_error": None,
        } | options
        made.append((Outbox(lambda: link, **given), link))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for outbox, link in made:
        outbox.close()
        link.outcomes.put(Outcome())
        outbox.join()


def parcel(name: str, size: int = 1) -> Parcel:
    """An event of so many bytes."""
    return Parcel(name, "/v1/events", b"x" * size)


def test_without_room_the_newest_is_dropped_counted_and_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Neither count nor bytes go over their bounds; drops are counted, and the log has one line of them."""
    outbox, link = make()
    assert outbox.put(parcel("a", 990))
    assert link.tried() == ["a"]  # under way, and still in the queue
    assert outbox.put(parcel("b", 10))
    with caplog.at_level(logging.WARNING, "ratchet.client"):
        assert [outbox.put(parcel(name)) for name in "cde"] == [False, False, False]
    assert (outbox.dropped, outbox.waiting) == (3, 2)
    assert sum("are dropped" in record.getMessage() for record in caplog.records) == 1
    link.outcomes.put(Outcome())
    assert link.tried() == ["b"]
    assert [outbox.put(parcel(name)) for name in "fghij"] == [True, True, True, True, False]
    assert outbox.dropped == 4


def test_a_caller_may_wait_for_room(make: Make) -> None:
    """With patience, a call on a full queue waits until there is room, and nothing is dropped."""
    outbox, link = make(queue_events=1)
    outbox.put(parcel("a"))
    link.tried()
    waiter = threading.Thread(target=outbox.put, args=(parcel("b"), PATIENCE_S))
    waiter.start()
    link.outcomes.put(Outcome())
    waiter.join(PATIENCE_S)
    assert link.tried() == ["b"]
    assert outbox.dropped == 0


def test_what_was_not_taken_goes_again_first_and_in_order(make: Make) -> None:
    """Of a partial answer, those to be sent again lead the next batch, the refused are reported, the rest is done."""
    heard: list[Rejected] = []
    outbox, link = make(on_error=heard.append)
    outbox.put(parcel("a"))
    link.tried()
    for name in "bcd":
        outbox.put(parcel(name))
    link.outcomes.put(Outcome())
    assert link.tried() == ["b", "c", "d"]
    outbox.put(parcel("e"))
    link.outcomes.put(Outcome(again=(0, 2), refused={1: "id: no"}, problem="503"))
    outbox.hurry()
    assert link.tried() == ["b", "d", "e"]
    link.outcomes.put(Outcome())
    assert outbox.flush(PATIENCE_S) == 0
    assert heard == [Rejected("c", "id: no", b"x")]
    assert (outbox.accepted, outbox.refused, outbox.dropped) == (4, 1, 0)


def test_a_callback_that_fails_does_not_stop_the_sending(make: Make) -> None:
    """The app's own exception in `on_error` is logged, and later events leave all the same."""

    def broken(_: Rejected) -> None:
        raise KeyError("the app's")

    outbox, link = make(on_error=broken)
    outbox.put(parcel("a"))
    link.tried()
    link.outcomes.put(Outcome(refused={0: "no"}))
    outbox.put(parcel("b"))
    assert link.tried() == ["b"]


def test_too_large_together_goes_in_halves_at_once(make: Make) -> None:
    """A batch that is too large is cut in two without a wait, and the next one is whole again."""
    outbox, link = make()
    outbox.put(parcel("0"))
    link.tried()
    for name in "abcd":
        outbox.put(parcel(name))
    link.outcomes.put(Outcome())
    assert link.tried() == ["a", "b", "c", "d"]
    link.outcomes.put(Outcome((0, 1, 2, 3), smaller=True))
    assert link.tried() == ["a", "b"]
    link.outcomes.put(Outcome())
    assert link.tried() == ["c", "d"]


def test_one_bad_event_does_not_hold_up_the_rest(make: Make) -> None:
    """A batch over which the server breaks down is cut until the culprit is alone and given up; the rest leaves."""
    outbox, link = make()
    outbox.put(parcel("0"))
    link.tried()
    for name in "abcd":
        outbox.put(parcel(name))
    link.outcomes.put(Outcome())
    while outbox.accepted + outbox.refused < 5:
        try:
            batch = link.batches.get(timeout=0.05)
        except queue.Empty:
            outbox.hurry()
            continue
        whole = Outcome(tuple(range(len(batch))), problem="500", suspect=True)
        link.outcomes.put(whole if "c" in batch else Outcome())
        outbox.hurry()
    assert (outbox.accepted, outbox.refused, outbox.waiting) == (4, 1, 0)


def test_a_full_batch_leaves_before_its_time(make: Make) -> None:
    """A batch waits for company until it is full, or somebody flushes, however long the linger."""
    outbox, link = make(linger_s=3600.0, queue_events=2 * BATCH_EVENTS, queue_bytes=10**6)
    for n in range(BATCH_EVENTS):
        outbox.put(parcel(str(n)))
    assert len(link.tried()) == BATCH_EVENTS
    link.outcomes.put(Outcome())
    outbox.put(parcel("last"))
    link.outcomes.put(Outcome())
    assert outbox.flush(PATIENCE_S) == 0
    assert link.tried() == ["last"]


def test_closing_says_what_is_left(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A flush ends with its time; what is left is returned and logged, the link is let go, and later events fail."""
    outbox, link = make()
    outbox.put(parcel("a"))
    link.tried()
    assert outbox.flush(0.0) == 1
    assert outbox.close() == 1
    assert "closed with 1 events that were not sent" in caplog.text
    with pytest.raises(RuntimeError, match="the client is closed"):
        outbox.put(parcel("b"))
    link.outcomes.put(Outcome())
    assert link.closed.wait(PATIENCE_S)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_starts_with_an_empty_queue(make: Make) -> None:
    """What waits at a fork is the parent's alone; the child's own events get a thread of the child's."""
    outbox, link = make()
    outbox.put(parcel("a"))
    link.tried()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        before = outbox.waiting
        outbox.put(parcel("b"))
        os.write(writer, f"{before} {link.tried()}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"0 ['b']"
    assert outbox.waiting == 1
