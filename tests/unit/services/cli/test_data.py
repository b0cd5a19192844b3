"""`ratchet import` and `ratchet dataset` as a person types them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import Store
from ratchet.services.cli.main import app
from ratchet.trainers import dataset as datasets
from ratchet.trainers.building import build
from ratchet.trainers.files import read_file

MAP = """
task = "support"
[time]
field = "{t}"
[[inference]]
name = "one"
prompt = "{q}"
content = "{a}"
"""


class Pairs:
    """A store that has pairs and takes the dataset's row."""

    def __init__(self, n: int) -> None:
        self.n = n

    def query(self, name: str, /, **_: Any) -> list[dict[str, Any]]:
        if name == "pairs_dropped":
            return [{"reason": "tie", "n": 2}]
        return [
            {
                "pair_id": f"p{n}",
                "source": "correction",
                "split": "holdout" if n % 4 == 0 else "train",
                "conversation_id": f"c{n}",
                "prompt_hash": "",
                "prompt": f"question {n}",
                "chosen": "good",
                "rejected": "bad",
                "weight": 1.0,
                "confidence": 1.0,
                "event_ids": [],
            }
            for n in range(self.n)
        ]

    def insert_rows(self, table: str, rows: list[dict[str, Any]]) -> int:
        assert table == "datasets_log"
        return len(rows)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, named by a settings file."""
    (tmp_path / "ratchet.toml").write_text(f"home = {json.dumps(str(tmp_path / 'home'))}\n")
    monkeypatch.setenv("RATCHET_CONFIG", str(tmp_path / "ratchet.toml"))
    return tmp_path / "home"


def _versions(home: Path) -> tuple[str, str]:
    now = datetime(2026, 11, 22, tzinfo=UTC)
    first = build(cast(Store, Pairs(8)), home, "support", now)
    return first.version, build(cast(Store, Pairs(10)), home, "support", now.replace(hour=1)).version


def test_dry_run_reports_and_publishes_nothing(tmp_path: Path) -> None:
    """A dry run needs no broker; its JSON has the counts and the bad records."""
    (tmp_path / "map.toml").write_text(MAP)
    lines = [json.dumps({"t": n, "q": "why", "a": "so"}) for n in range(30)] + ["{"]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    arguments = ["import", "jsonl", str(tmp_path / "log.jsonl"), "--map", str(tmp_path / "map.toml"), "--dry-run"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    report = json.loads(done.stdout)
    assert (report["records"], report["bad"], report["published"]) == (31, 1, 0)
    assert report["events"] == {"inference.v1": 30}
    assert "left out: line 31: not JSON" in CliRunner().invoke(app, arguments).stdout


def test_dataset_is_listed_shown_and_compared(home: Path) -> None:
    """Versions are found by the beginning of their name, with their counts and their differences."""
    first, second = _versions(home)
    listed = json.loads(CliRunner().invoke(app, ["dataset", "list", "--json"]).stdout)
    assert [one["version"] for one in listed] == [first, second]
    shown = json.loads(CliRunner().invoke(app, ["dataset", "show", second[:5], "--json"]).stdout)
    assert (shown["parent"], shown["built"], shown["dropped"]) == (first, {"train": 7, "holdout": 3}, {"tie": 2})
    assert "train: 7 pairs of 7 conversations" in CliRunner().invoke(app, ["dataset", "show", second]).stdout
    diff = json.loads(CliRunner().invoke(app, ["dataset", "diff", first, second, "--json"]).stdout)
    assert diff["train"] == {"added": ["p9"], "removed": [], "changed": []}
    assert diff["holdout"]["added"] == ["p8"]


def test_dataset_is_exported_as_it_was_built(home: Path, tmp_path: Path) -> None:
    """The exported file is the version's own, row for row."""
    version, _ = _versions(home)
    out = tmp_path / "out.jsonl"
    done = CliRunner().invoke(app, ["dataset", "export", version, "--out", str(out)])
    assert done.exit_code == 0
    assert out.read_bytes() == datasets.find(home, version).file("train").read_bytes()


def test_a_version_is_exported_in_a_format_that_holds_it(home: Path, tmp_path: Path) -> None:
    """Preference pairs go out as TRL reads them; a format for single answers is refused in a sentence."""
    version, _ = _versions(home)
    arguments = ["dataset", "export", version, "--out", str(tmp_path / "out.parquet"), "--format"]
    assert CliRunner().invoke(app, [*arguments, "preference"]).exit_code == 0
    assert len(read_file(tmp_path / "out.parquet", "preference").rows) == 6
    refused = CliRunner().invoke(app, [*arguments, "messages"])
    assert "would lose something" in str(refused.exception)


@pytest.mark.parametrize(
    "arguments",
    [
        ["dataset", "build", "support", "--kind", "grpo"],
        ["dataset", "export", "x", "--out", "y", "--side", "test"],
        ["dataset", "export", "x", "--out", "y", "--format", "csv"],
        ["dataset", "import", "x.jsonl", "--format", "turns"],
        ["dataset", "import", "x.jsonl", "--format", "rows", "--task", "t"],
        ["forget"],
        ["forget", "--user", "u", "--name", "n"],
        ["train", "support", "--method", "ppo"],
        ["evaluate"],
        ["evaluate", "support@v1-00000000", "--base"],
    ],
)
def test_what_is_not_there_is_refused_with_what_is_allowed(home: Path, arguments: list[str]) -> None:
    """A wrong option ends with status 2 before anything is started."""
    assert CliRunner().invoke(app, arguments).exit_code == 2
