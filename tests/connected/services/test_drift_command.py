"""`ratchet drift report` on a real ClickHouse."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.services.cli.main import app

START = datetime(2026, 11, 2, tzinfo=UTC)


def rows(task: str) -> list[dict[str, Any]]:
    """Six hours of short answers, then three of long ones, 200 an hour."""
    return [
        {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{task}{hour}{number}")),
            "at": (START + timedelta(hours=hour, seconds=number)).isoformat(),
            "task": task,
            "adapter": "base",
            "stage": "stable",
            "status": "ok",
            "content": "word " * (number % 50 + (20 if hour >= 6 else 1)),
            "latency_ms": 100.0 + number,
        }
        for hour in range(9)
        for number in range(200)
    ]


def test_the_report_says_what_moved_and_what_it_cannot_say(clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a table and as JSON: from what to what, with n, effect, p and bins; abstentions with reasons."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    with connect(clickhouse) as store:
        migrate(store)
        store.insert_rows("ratchet.inferences_log", rows(task))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("COLUMNS", "250")
    asked = ["drift", "report", task, "--since", "2026-11-02T06:00:00Z", "--until", "2026-11-02T09:00:00Z"]
    done = CliRunner().invoke(app, [*asked, "--json", "--exact"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["baseline"] == {"since": "2026-10-26T06:00:00+00:00", "until": "2026-11-02T06:00:00+00:00"}
    metrics = {one["metric"]: one for one in report["metrics"]}
    length = metrics["answer_length"]
    assert (length["n_baseline"], length["n"], length["baseline"], length["value"]) == (1200, 600, 127.5, 222.5)
    assert length["distances"]["wasserstein"] == pytest.approx(95.0)
    assert length["effect"] == length["distances"]["psi"] > 0.5
    assert metrics["satisfaction"]["abstains"] == "no observations in the baseline"
    assert (report["judge"]["judge"], report["judge"]["trusted"]) == (None, False)
    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "answer_length" in shown.output
    assert "says nothing: no observations in the baseline" in shown.output
    assert " → " in shown.output
    refused = CliRunner().invoke(app, [*asked, "--baseline-until", "2026-11-02T08:00:00Z"])
    assert refused.exit_code == 2
    assert "hours in common" in refused.output
    assert "30m, 24h" in CliRunner().invoke(app, ["drift", "report", task, "--since", "soon"]).output


def test_judged_figures_have_the_judges_agreement_beside_them(clickhouse: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far people agree with the judge, with n, and whether it may gate; a judge without labels is advisory."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("COLUMNS", "250")
    ids = [str(row["id"]) for row in rows(task)]
    with connect(clickhouse) as store:
        migrate(store)
        store.insert_rows("ratchet.inferences_log", rows(task))
        scores = [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"s{id}")), "at": START.isoformat(), "task": task,
                "adapter": "base", "target": "inference", "kind": "pointwise", "target_id": id, "judge": "j",
                "rubric": "helpful.v1", "rubric_hash": "0" * 16, "score": 0.9 if at % 2 else 0.1,
                "inclusion_probability": 1.0,
            }
            for at, id in enumerate(ids[:200])
        ]  # fmt: skip
        store.insert_rows("ratchet.scores_log", scores)
        asked = ["drift", "report", task, "--since", "2026-11-02T06:00:00Z", "--until", "2026-11-02T09:00:00Z"]
        shown = CliRunner().invoke(app, asked)
        assert "judge_score is by j: n = 0 labels; advisory: no human label" in shown.output
        thumbs = [
            {
                "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"f{id}")), "at": datetime.now(UTC).isoformat(), "task": task,
                "inference_id": id, "kind": "thumb", "number": float(at % 2), "source": "http",
            }
            for at, id in enumerate(ids[:100])
        ]  # fmt: skip
        store.insert_rows("ratchet.feedback_log", thumbs)
    shown = CliRunner().invoke(app, asked)
    assert "judge_score is by j (helpful.v1): agreement 100%" in shown.output, shown.output
    assert "n = 100 labels; trusted" in shown.output
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)["judge"]
    assert (told["judge"], told["trusted"], told["calibration"]["n"]) == ("j", True, 100)
