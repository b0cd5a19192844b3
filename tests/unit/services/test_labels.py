"""Files of human labels: good records, bad ones by their line, and the figures of a whole file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.schemas.errors import DatasetError
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.calibrating import of_scores
from ratchet.services.cli.judge import app
from ratchet.services.labels import read_labels

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID = "019a0000-0000-7000-8000-000000000001"


def write(path: Path, *records: object) -> Path:
    """A JSONL file; texts are lines as they are."""
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("no json", "not JSON"),
        ('{"score": NaN, "label": 1}', "not JSON"),
        ({"score": 0.5, "label": 1.5}, "label"),
        ({"score": -0.1, "label": True}, "score"),
        ({"score": 0.5, "label": "good"}, "label"),
        ({"label": 1}, "a record has a score, or an inference_id with a label"),
        ({"inference_id": ID}, "a record has a score, or an inference_id with a label"),
        ({"score": 0.5, "label": 1, "inclusion_probability": 0}, "inclusion_probability"),
        ({"score": 0.5, "label": 1, "at": "2026-11-01T12:00:00"}, "a time without zone"),
        ({"score": 0.5, "label": 1, "laber": 1}, "laber"),
    ],
)
def test_a_bad_record_is_named_by_its_line(tmp_path: Path, bad: object, why: str) -> None:
    """One bad line of twenty-one is left out and named; one of three stops, with the same words."""
    good = {"score": 0.75, "label": True}
    file = read_labels(write(tmp_path / "many.jsonl", *[good] * 10, bad, *[good] * 10))
    assert (len(file.records), file.bad) == (20, 1)
    assert file.examples[0].startswith("line 11: ")
    assert why in file.examples[0]
    with pytest.raises(DatasetError, match=r"1 of 3 records are bad, over 5%: line 2: ") as error:
        read_labels(write(tmp_path / "few.jsonl", good, bad, good))
    assert why in str(error.value)


def test_files_that_cannot_be_used_say_why(tmp_path: Path) -> None:
    """No file, no records, and records with and without scores in one file."""
    with pytest.raises(DatasetError, match="No such file"):
        read_labels(tmp_path / "missing.jsonl")
    with pytest.raises(DatasetError, match="no records in it"):
        read_labels(write(tmp_path / "empty.jsonl"))
    with pytest.raises(DatasetError, match="line 1 has a score and line 2 has none"):
        read_labels(write(tmp_path / "mixed.jsonl", {"score": 1, "label": 1}, {"inference_id": ID, "label": 1}))


def test_one_class_only_has_no_correction(tmp_path: Path) -> None:
    """Labels that are all good leave specificity unknown and the rate uncorrected, and the judge is advisory."""
    file = read_labels(write(tmp_path / "one.jsonl", *[{"score": 0.9, "label": True}] * 60))
    found = of_scores("t", file, TaskPolicy(), NOW, "j", "r")
    assert found.calibration.specificity is None
    assert found.calibration.kappa is None
    assert found.corrected.rate is None
    assert found.corrected.why_no_rate == "no label of a bad answer: the judge's specificity is unknown"
    assert found.standing.reason.startswith("its 60 labels have no bad answer")


def test_expired_labels_of_a_file_do_not_count(tmp_path: Path) -> None:
    """Labels older than label_days are counted as expired, and the calibration ends with its 50th newest label."""
    old = {"score": 0.9, "label": 1, "at": "2026-01-01T00:00:00Z"}
    records = [{"score": s, "label": s > 0.5, "at": "2026-10-30T00:00:00Z"} for s in [0.9] * 40 + [0.1] * 20]
    found = of_scores("t", read_labels(write(tmp_path / "f.jsonl", *[old] * 5, *records)), TaskPolicy(), NOW, "j", "r")
    assert (found.calibration.n, found.calibration.expired) == (60, 5)
    assert found.calibration.expires_at == datetime(2027, 1, 28, tzinfo=UTC)
    assert found.standing.trusted


def test_the_command_prints_and_gives_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with scores needs no running part; figures come with n and interval, bad input with one sentence."""
    (tmp_path / "ratchet.toml").write_text("[tasks.support]\n")
    monkeypatch.chdir(tmp_path)
    labelled = [
        {"score": s, "label": y} for s, y, n in [(0.9, 1, 40), (0.9, 0, 5), (0.2, 0, 30), (0.2, 1, 5)] for _ in range(n)
    ]
    traffic = [{"score": 0.9 if number % 4 else 0.2} for number in range(400)]
    path = write(tmp_path / "labels.jsonl", *labelled, *traffic)
    run = CliRunner()
    said: dict[str, Any] = json.loads(run.invoke(app, ["calibrate", "support", "--labels", str(path), "--json"]).stdout)
    (judge,) = said["judges"]
    assert (judge["n"], judge["sensitivity"]["n"], judge["specificity"]["n"]) == (80, 45, 35)
    assert judge["corrected"]["naive"]["n"] == 480
    assert judge["corrected"]["rate"]["low"] < judge["corrected"]["rate"]["value"] < judge["corrected"]["rate"]["high"]
    assert judge["corrected"]["mean"]["n"] == 80
    assert judge["standing"]["trusted"]
    text = run.invoke(app, ["calibrate", "support", "--labels", str(path), "--judge", "mine"]).stdout
    assert text.startswith("mine by no named rubric on task support\n")
    assert "agreement       0.875 [0.785, 0.931] n = 80" in text
    assert "standing        trusted: agreement 88% [78%, 93%], n = 80" in text
    for arguments, why in [
        (["calibrate", "nothing"], "task 'nothing' is not in ratchet.toml"),
        (["calibrate", "support", "--labels", "missing"], "missing: No such file"),
        (["calibrate", "support", "--keep"], "goes with --labels"),
        (["calibrate", "support", "--labels", str(path), "--keep"], "not with scores"),
    ]:
        result = run.invoke(app, arguments)
        assert result.exit_code != 0
        assert why in result.output + str(result.exception)
