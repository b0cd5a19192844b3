"""How long the faults last, which broker they happen to, and one line of JSON with what they showed.

``RATCHET_TEST_KILLS`` (20) and ``RATCHET_TEST_AWAY_S`` (60) make a short version of the same tests;
``RATCHET_TEST_KAFKA`` names a Kafka to use instead of the ones that the tests start (it is not taken away then).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from faults.world import World, seconds_since, world
from parts import NAMED_KAFKA, has_apache

KILLS = int(os.environ.get("RATCHET_TEST_KILLS", "20"))
AWAY_S = float(os.environ.get("RATCHET_TEST_AWAY_S", "60"))
ANY = "named" if NAMED_KAFKA else "apache" if has_apache() else "embedded"
_shown: dict[str, dict[str, Any]] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here; the longest one comes first, since two processes share them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fault)
    items.sort(key=lambda item: not item.name.startswith("test_ingest_killed"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Gather what a test recorded."""
    for name, value in report.user_properties if report.when == "call" else ():
        if name == "figures":
            _shown[report.nodeid.partition("::")[2]] = value | {"passed": report.passed}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print all figures as the last line."""
    if _shown and not hasattr(config, "workerinput"):
        names = ("kills", "accepted", "stored", "lost", "duplicates", "wrong_status")
        totals = {name: sum(each.get(name, 0) for each in _shown.values()) for name in names}
        print(json.dumps(totals | {"tests": _shown}))


@pytest.fixture
def kills() -> int:
    """How often something is killed."""
    return KILLS


@pytest.fixture
def away_s() -> float:
    """How many seconds something is away."""
    return AWAY_S


@pytest.fixture(params=["named"] if NAMED_KAFKA else ["embedded", "apache"])
def each_broker(request: pytest.FixtureRequest) -> str:
    """The embedded broker, then a real Kafka."""
    return str(request.param)


@pytest.fixture
def any_broker() -> str:
    """A real Kafka where there is one, else the embedded broker."""
    return ANY


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds in a folder of the test's own; takes what `World` takes behind its folder."""
    with ExitStack() as stack:
        yield lambda kind, **arguments: stack.enter_context(world(tmp_path, kind, **arguments))


@pytest.fixture
def show(record_property: Callable[[str, object], None]) -> Callable[..., dict[str, Any]]:
    """Ends a test: records the figures, and holds them to 'accepted is stored, once'."""
    begun = time.monotonic()

    def end(at: World, **more: object) -> dict[str, Any]:
        figures = at.figures(seconds=seconds_since(begun), **more)
        record_property("figures", figures)
        assert figures["accepted"] > 0
        assert figures["lost"] == 0, figures
        assert figures["duplicates"] == 0, figures
        assert figures["wrong_status"] == 0, figures
        return figures

    return end
