"""`ratchet checks test` over a file: figures with their n and interval, abstentions, the commonest reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.schemas.errors import RatchetError
from ratchet.services.cli.main import app

CONFIG = """
[tasks.empty]
[tasks.support]
checks = [
  { name = "short", kind = "length", max = 3 },
  { name = "known", kind = "reference", file = "refs.jsonl" },
  { name = "english", kind = "language", languages = ["en"] },
]
"""
GOLDEN = Path(__file__).parents[4] / "schemas" / "golden" / "inference.v1.json"


def tried(*arguments: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command with a configuration of its own."""
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    return CliRunner().invoke(app, ["checks", "test", *arguments])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A task with three checks and its references."""
    (tmp_path / "refs.jsonl").write_text('{"prompt": "q", "expect": "Yes"}')
    file = tmp_path / "ratchet.toml"
    file.write_text(CONFIG)
    return file


def test_figures_of_a_file(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events and plain lines; reasons that differ in their figures alone are one."""
    event = json.loads(GOLDEN.read_text()) | {"request": {"prompt": "q"}, "response": {"content": "yes."}}
    failed = event | {"status": "error", "response": None}
    lines = [event, failed, {"prompt": "q", "text": "No"}, {"prompt": "r", "text": "This is one whole sentence."}]
    file = config.parent / "answers.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    done = tried("support", "--file", str(file), "--json", config=config, monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    said = json.loads(done.output)
    short, known, english = said["checks"]
    assert (said["task"], short["n"], short["passed"], known["not_applicable"]) == ("support", 3, 1, 1)
    assert (round(short["low"], 3), round(short["high"], 3)) == (0.061, 0.792)
    assert short["reasons"] == [{"verdict": "fail", "n": 2, "example": "4 characters"}]
    assert (known["n"], known["passed"], known["share"]) == (2, 1, 0.5)
    assert (english["n"], english["abstained"], english["share"]) == (1, 2, 1.0)
    shown = tried("support", "--file", str(file), config=config, monkeypatch=monkeypatch).output
    assert "short: 2 fail: 4 characters" in shown
    assert "unknown" not in shown


def test_no_answers_are_no_good_news(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a verdict there is no share."""
    (config.parent / "none.jsonl").write_text("\n")
    done = tried("support", "--file", str(config.parent / "none.jsonl"), config=config, monkeypatch=monkeypatch)
    assert done.output.count("unknown") == 6


@pytest.mark.parametrize(
    ("task", "text", "says"),
    [
        ("nothing", "", "task 'nothing'; declared: empty, support"),
        ("empty", "", "tasks.empty.checks: none is declared"),
        ("support", None, "answers.jsonl"),
        ("support", "\n{", "line 2: not JSON"),
        ("support", "[]", "line 1: no object; allowed: an inference.v1 event, or messages with text"),
        ("support", '{"messages": []}', "line 1: text: Field required"),
        ("support", '{"text": "x"}', "a request has exactly one of messages, prompt"),
        ("support", '{"prompt": "q", "text": "x", "taggs": {}}', "line 1: taggs: Extra inputs are not permitted"),
        ("support", '{"schema": "inference.v1"}', "line 1: id: Field required"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence(
    task: str, text: str | None, says: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, its line and what is allowed; a task that is not declared, or without checks."""
    file = config.parent / "answers.jsonl"
    if text is not None:
        file.write_text(text)
    done = tried(task, "--file", str(file), config=config, monkeypatch=monkeypatch)
    assert isinstance(done.exception, RatchetError)
    assert says in str(done.exception)
