"""Which tracker is set, what is refused, and a server that answers nonsense."""

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from parts import JsonHandler

from ratchet.infra.settings import load
from ratchet.infra.tracking.mlflow import Mlflow
from ratchet.infra.tracking.tracker import open_tracker
from ratchet.schemas.errors import SettingsError, TrackingError
from ratchet.services.processes import run_consumers

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tracking", "said"),
    [
        ({"kind": "mlflow"}, "url: none with kind 'mlflow'"),
        ({"kind": "mlflow", "url": "tracker:5000"}, "http"),
        ({"kind": "mlflow", "url": "offline"}, "http"),
        ({"kind": "other", "url": "http://tracker"}, "mlflow"),
        ({"kind": "wandb", "experiment": ""}, "experiment"),
    ],
)
def test_a_tracker_that_cannot_be_asked_is_refused(tmp_path: Path, tracking: dict[str, Any], said: str) -> None:
    """The error names the setting and what is allowed, and never the token."""
    with pytest.raises(SettingsError, match=said) as caught:
        load(environ={}, config_dir=tmp_path, tracking=tracking | {"token": "hush-hush"})
    assert "hush-hush" not in str(caught.value)


def test_one_setting_chooses_the_tracker(tmp_path: Path) -> None:
    """MLflow by its address alone."""
    s = load(environ={}, config_dir=tmp_path, tracking={"kind": "mlflow", "url": "http://tracker:5000"})
    assert s.tracking is not None
    tracker = open_tracker(s.tracking, tmp_path)
    assert isinstance(tracker, Mlflow)
    tracker.close()


def test_without_a_tracker_its_consumer_is_refused_by_name(tmp_path: Path) -> None:
    """Asked for by name it says which setting is missing."""
    with pytest.raises(SettingsError, match="no tracker is set"):
        run_consumers(load(environ={}, config_dir=tmp_path), ["tracking"])


@pytest.fixture
def answers() -> Iterator[tuple[str, list[tuple[Any, int]]]]:
    """A server that gives the answers it is told to, in turn."""
    turn: list[tuple[Any, int]] = []

    class Handler(JsonHandler):
        def do_GET(self) -> None:
            self.reply(*turn.pop(0))

        do_POST = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", turn
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(({"message": "busy"}, 503), "answered 503"), (({"message": "who?"}, 401), "401"), (([], 200), "answered list")],
)
def test_an_answer_that_is_none_keeps_the_event_waiting(
    answers: tuple[str, list[tuple[Any, int]]], answer: tuple[Any, int], said: str
) -> None:
    """Busy, not allowed, or no MLflow at all: the error says what was asked and what came."""
    url, turn = answers
    turn.append(answer)
    tracker = Mlflow(url, "learned")
    with pytest.raises(TrackingError, match=f"experiments/get-by-name {said}|{said}"):
        tracker.run("job", "name", NOW, {})
    tracker.close()
