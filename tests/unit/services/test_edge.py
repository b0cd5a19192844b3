"""An edge's file: in place as a whole and only after its check, and acknowledged when it is in force."""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ratchet.infra.clock import new_id, now
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import EdgeRefused
from ratchet.schemas.rollout_events import Gateway
from ratchet.services.edge import PLACE, EdgeFile, EdgeText, Presence, follow

START = datetime(2026, 11, 29, tzinfo=UTC)
REFUSES_BAD = [
    sys.executable,
    "-c",
    "import sys; 'bad' in open(sys.argv[1]).read() and sys.exit('no such host')",
    PLACE,
]


def test_a_file_that_the_check_refuses_is_not_put_in_place(tmp_path: Path) -> None:
    """The old file stays, the command's own words are told, and nothing is reloaded."""
    path, reloaded = tmp_path / "support.conf", tmp_path / "reloaded"
    file = EdgeFile(path, REFUSES_BAD, [sys.executable, "-c", f"open({str(reloaded)!r}, 'a').write('.')"])
    file.put(EdgeText(1, "good"))
    with pytest.raises(EdgeRefused, match="no such host"):
        file.put(EdgeText(2, "bad"))
    assert path.read_text() == "good"
    assert reloaded.read_text() == "."


@pytest.mark.parametrize("words", [["/no/such/program"], [sys.executable, "-c", "raise SystemExit(3)"]])
def test_a_reload_that_fails_says_so(tmp_path: Path, words: list[str]) -> None:
    """Neither a program that is missing nor one that ends badly counts as a reload."""
    with pytest.raises(EdgeRefused, match=r"cannot be run|ended with status 3"):
        EdgeFile(tmp_path / "support.conf", reload=words).put(EdgeText(1, "good"))


def test_what_is_acknowledged_is_what_is_in_force(tmp_path: Path) -> None:
    """Nothing before a table is in force; a refused one leaves the last one acknowledged; the next good one follows."""
    file, out = EdgeFile(tmp_path / "support.conf", REFUSES_BAD), MemoryPublisher()
    wake, stop = threading.Event(), threading.Event()
    tables = [EdgeText(*one) for one in ((3, "bad"), (0, "good: base"), (4, "good"), (5, "bad"), (6, "good again"))]

    def newest() -> EdgeText:
        wake.set()  # as a table that comes while this one is put in place
        if len(tables) == 1:
            stop.set()
        return tables.pop(0)

    presence = Presence("edge:support:here:nginx", "support", 60)
    follow(presence, file, newest, out, wake, stop, now=now, new_id=new_id)
    said = [event for event in out.events if isinstance(event, Gateway)]
    assert [one.tables for one in said] == [{}, {"support": 4}, {"support": 4}, {"support": 6}]
    assert said[1].since == said[2].since != said[3].since
    assert {one.gateway for one in said} == {"edge:support:here:nginx"}


def test_an_adapter_that_left_counts_as_asked_until_every_answer_has_ended() -> None:
    """An edge counts no requests: what may be under way is said to be, and the switch is over when it was confirmed."""
    presence = Presence("edge:support:here:nginx", "support", 60)
    presence.takes_effect(EdgeText(1, "", frozenset({"base", "t@v1-00000000"})), START)
    presence.takes_effect(EdgeText(2, "", frozenset({"base"})), flipped := START + timedelta(seconds=100))

    def word(seconds: float) -> Gateway:
        said = presence.word(new_id(), flipped + timedelta(seconds=seconds))
        assert said is not None
        return said

    assert word(59).in_flight == {"base": 1, "t@v1-00000000": 1}
    assert word(61).in_flight == {"base": 1}
    assert word(61).last_request == {"base": flipped + timedelta(seconds=61), "t@v1-00000000": flipped}
    presence.takes_effect(EdgeText(3, "", frozenset({"base", "t@v1-00000000"})), flipped + timedelta(seconds=200))
    assert word(300).last_request["t@v1-00000000"] == flipped + timedelta(seconds=300)
