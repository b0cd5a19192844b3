"""The job file and the dataset's lines."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.dpo_job import DpoParams, read_rows
from ratchet.trainers.train_dpo import main

ROW = {
    "prompt": [{"role": "user", "content": "q"}],
    "chosen": [{"role": "assistant", "content": "a"}],
    "rejected": [{"role": "assistant", "content": "b"}],
    "weight": 0.5,
    "pair_id": "p1",
    "event_ids": ["e1"],
}


def test_rows_are_read_and_empty_lines_skipped(tmp_path: Path) -> None:
    """One object a line; what only lineage needs is let through."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n")
    rows = read_rows(path)
    assert [row.weight for row in rows] == [0.5, 0.5]
    assert rows[0].chosen[0].content == "a"


@pytest.mark.parametrize("line", ["{", "[]", json.dumps({**ROW, "chosen": []}), json.dumps({**ROW, "weight": -1})])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    """The error names the file and the line."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    with pytest.raises(DatasetError, match=r"pairs\.jsonl, line 2"):
        read_rows(path)


def test_a_missing_dataset_is_a_dataset_error(tmp_path: Path) -> None:
    """No traceback for a path that is not there."""
    with pytest.raises(DatasetError, match="No such file"):
        read_rows(tmp_path / "none.jsonl")


def test_every_loss_needs_a_weight() -> None:
    """Two losses and one weight is a mistake, not a default."""
    with pytest.raises(ValidationError, match="1 loss weights for 2 losses"):
        DpoParams(loss_weights=[1.0])


def test_an_empty_dataset_stops_with_a_reason_and_status_3(tmp_path: Path) -> None:
    """Nothing to learn from: result.json says so, and torch was not even loaded."""
    (tmp_path / "empty.jsonl").write_text("")
    job = {"base_model": str(tmp_path), "dataset": str(tmp_path / "empty.jsonl"), "output": str(tmp_path / "out")}
    (tmp_path / "job.json").write_text(json.dumps(job))
    assert main(["--job", str(tmp_path / "job.json")]) == 3
    assert "nothing to learn from" in json.loads((tmp_path / "out" / "result.json").read_text())["error"]


def test_a_wrong_job_file_is_refused_with_the_field(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2 and one line that names what is wrong."""
    (tmp_path / "job.json").write_text('{"base_model": "x", "dataset": "y", "output": "z", "extra": 1}')
    assert main(["--job", str(tmp_path / "job.json")]) == 2
    assert "extra" in capsys.readouterr().err
