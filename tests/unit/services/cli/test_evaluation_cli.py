"""The evaluation matrix as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from ratchet.schemas.evaluation_policy import EvaluationGate
from ratchet.services.cli import evaluation
from ratchet.services.cli.main import app
from ratchet.services.matrix_picture import draw
from ratchet.trainers.rules.acceptance import answer
from ratchet.trainers.rules.matrix import matrix
from ratchet.trainers.rules.measures import Observed, Value


def _observed(values: list[float]) -> Observed:
    named: dict[str, Value] = {f"{n:06}": (one,) for n, one in enumerate(values)}
    return Observed(named)


def measured() -> dict[str, Any]:
    """What `matrix_now` gives of three models, with a gate of each verdict."""
    rates = {"base": 0.2, "stable": 0.8, "candidate": 0.9}
    found = {
        side: {
            "completion": _observed([float(n < share * 100) for n in range(100)]),
            "json_valid": _observed([float(n < share * 100 + 5) for n in range(100)]),
            "latency_p95": _observed([100.0 + n + 50 * share for n in range(100)]),
            "lm_eval:sums": Observed(error="no data") if side == "base" else _observed([1.0] * 60 + [0.0] * 40),
        }
        for side, share in rates.items()
    }
    models = {"base": "smollm2", "stable": "support@v2-00000000", "candidate": "support@v3-11111111"}
    gates = [
        EvaluationGate(metric="completion", margin=0.05),
        EvaluationGate(metric="json_valid", floor=0.92),
        EvaluationGate(metric="latency_p95", ceiling=150, critical=False),
    ]
    answers = [answer(one, found["candidate"][one.metric], found["stable"][one.metric], 0).as_json() for one in gates]
    table = matrix(models, found, seed=0) | {"notes": ["win_rate: nobody judged"]}
    return {"adapter": models["candidate"], "task": "support", "matrix": table, "gates": answers, "rejected": None}


def test_the_table_has_figures_intervals_differences_and_verdicts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every side's figure with its interval, the difference to stable, each gate with its reason, errors and notes."""
    monkeypatch.setenv("COLUMNS", "200")
    result = measured()
    evaluation.show(result["matrix"], result["gates"])
    said = capsys.readouterr().out
    for text in ("90.0%", "+10.0%", "82.6%", "to 94.5%", "pass", "inconclusive", "fail (not critical)", "no data"):
        assert text in said, text
    assert "not measured: win_rate: nobody judged" in said


def test_the_json_is_json_and_the_error_is_a_sides() -> None:
    """The matrix is plain JSON; a side that could not be measured has its error and no figure."""
    table = json.loads(json.dumps(measured()))["matrix"]
    sums = table["metrics"]["lm_eval:sums"]
    assert sums["errors"] == {"base": "no data"}
    assert "base" not in sums
    assert sums["difference"]["value"] == 0
    assert table["against"] == "stable"


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_picture_shows_every_metric(tmp_path: Path, ending: str) -> None:
    """An SVG is the same file each time and names metrics and models; a PNG can be opened."""
    first, second = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    draw(first, measured())
    draw(second, measured())
    assert first.read_bytes() == second.read_bytes()
    if ending == "svg":
        assert first.read_bytes().startswith(b"<?xml")
        assert "<!-- completion -->" in first.read_text()
        assert "<!-- candidate: support@v3-11111111 -->" in first.read_text()
    else:
        with Image.open(first) as picture:
            assert picture.width > 500


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--matrix"], "of an adapter or a task alone"),
        (["support", "--matrix", "--base"], "of an adapter or a task alone"),
        (["support", "--matrix", "--picture", "x.pdf"], ".svg or .png"),
        ([], "name an adapter"),
    ],
)
def test_arguments_that_contradict_are_refused(arguments: list[str], told: str) -> None:
    """Before anything is connected to."""
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
