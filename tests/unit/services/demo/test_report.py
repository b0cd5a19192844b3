"""The demo's report: closed only when everything was observed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ratchet.consumers.calibration import InForce
from ratchet.consumers.rules.standing import Labelled, calibrate, standing, tally
from ratchet.schemas.judging import JudgePolicy
from ratchet.services.demo import report
from ratchet.services.demo.picture import draw

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
STAGES = ["shadow", "5%", "20%", "50%", "100%"]


def whole() -> report.Report:
    """A report of a demo in which everything was seen."""
    return report.Report(
        completion_before=report.completion(48, 0),
        completion_after=report.completion(48, 48),
        promoted={"adapter": "support@v1-1a2b3c4d", "stages": [{"stage": stage} for stage in STAGES]},
        rolled_back={"adapter": "support@v2-1a2b3c4d", "stage": "shadow", "requests": 12, "switch_seconds": 0.1},
        pairs={"built": 90, "dropped": {"no_counterpart": 3}},
        judge={"n": 20, "agreement": 0.5},
        events={"emitted": 400, "stored": 400, "duplicates": 0, "lost": 0},
    )


def test_a_whole_report_is_closed() -> None:
    """Nothing is missing when everything was observed; the documented keys are there."""
    value = whole().as_json()
    assert value["closed"]
    assert {"completion_before", "completion_after", "promoted", "rolled_back", "pairs", "judge", "events"} < set(value)
    assert value["completion_after"] == {"n": 48, "k": 48, "rate": 1.0, "low": 0.9259, "high": 1.0}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"promoted": None}, "was not promoted"),
        ({"rolled_back": None}, "was not rolled back"),
        ({"completion_after": report.completion(48, 2)}, "not above completion before"),
        ({"pairs": {"built": 0, "dropped": {}}}, "no preference pair"),
        ({"judge": {"n": 0, "agreement": None}}, "the judge scored nothing"),
        ({"events": {"emitted": 10, "stored": 9, "duplicates": 0, "lost": 1}}, "events were lost"),
        ({"events": {"emitted": 10, "stored": 10, "duplicates": 1, "lost": 0}}, "counted twice"),
        ({"promoted": {"adapter": "x", "stages": [{"stage": "shadow"}, {"stage": "100%"}]}}, "did not pass through"),
    ],
)
def test_what_was_not_observed_is_named(changes: dict[str, Any], says: str) -> None:
    """One missing observation keeps the loop open and is named."""
    made = whole()
    for name, value in changes.items():
        setattr(made, name, value)
    assert not made.as_json()["closed"]
    assert any(says in sentence for sentence in made.missing())


def decision(seconds: float, action: str, stage: str, n: int) -> dict[str, Any]:
    """A row of the audit log."""
    gate = {"gate": "completion", "verdict": "pass", "stable": {"n": n}, "candidate": {"n": n // 2}}
    return {"at": START + timedelta(seconds=seconds), "action": action, "stage": stage, "gates": [gate] if n else []}


def test_a_decision_closes_the_stage_before_it() -> None:
    """The gates of a decision judged the stage that it ended; its length is the time between decisions."""
    log = [decision(0, "start", "shadow", 0), decision(30, "advance", "5%", 12), decision(90, "promote", "5%", 40)]
    assert report.stages_of(log) == [
        {"stage": "shadow", "n_stable": 12, "n_candidate": 6, "verdicts": {"completion": "pass"}, "seconds": 30.0},
        {"stage": "5%", "n_stable": 40, "n_candidate": 20, "verdicts": {"completion": "pass"}, "seconds": 60.0},
    ]


def test_what_was_proved_on_the_way_belongs_to_the_stage() -> None:
    """A gate that passed in mid-stage ended its test there; the stage is as long as it was; shadow carries nothing."""
    unsure = decision(40, "advance", "20%", 20)
    unsure["gates"][0]["verdict"] = "inconclusive"
    shadow = decision(10, "prove", "shadow", 9), decision(15, "advance", "5%", 9)
    log = [decision(0, "start", "shadow", 0), *shadow, decision(30, "prove", "5%", 12), unsure]
    assert [(one["verdicts"]["completion"], one["seconds"]) for one in report.stages_of(log)] == [
        ("pass", 15.0),
        ("pass", 25.0),
    ]
    assert report.stages_of([*log[:3], unsure])[1]["verdicts"] == {"completion": "inconclusive"}


def test_the_switch_is_never_negative() -> None:
    """No request after the decision means that the switch took no time that anyone could see."""
    assert report.switch_seconds(START, START - timedelta(seconds=2)) == 0.0
    assert report.switch_seconds(START, START + timedelta(seconds=0.25)) == 0.25


def test_a_judge_is_advisory_until_it_has_labels_and_agrees() -> None:
    """The judge's standing follows the policy's labels and the lower end of its agreement."""
    policy = JudgePolicy()

    def said(agree: int, n: int) -> dict[str, Any]:
        half = agree // 2
        items = [Labelled(1, 1)] * half + [Labelled(0, 0)] * (agree - half) + [Labelled(0, 1)] * (n - agree)
        found = calibrate("t", "j", "r", "0" * 16, tally(items))
        return report.judge(InForce("j", found.rubric_hash, found, standing(found, policy, START)))

    assert said(180, 200)["standing"].startswith("trusted: agreement 90% [85%, 93%], n = 200")
    assert said(46, 49)["standing"] == "advisory: 49 of 50 labels"
    assert said(150, 200)["standing"].startswith("advisory: agreement 75% [69%, 80%], n = 200: not shown")
    assert report.judge(InForce("j", "0" * 16, None, standing(None, policy, START)))["n"] == 0


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    """The picture is a PNG file with something on it."""
    timeline = [
        {"at": START + timedelta(seconds=i), "adapter": "base" if i < 30 else "support@v1-1a2b3c4d", "completed": i % 2}
        for i in range(60)
    ]
    decisions = [decision(30, "start", "shadow", 0), decision(50, "abort", "shadow", 9)]
    draw(tmp_path / "quality.png", timeline, decisions, whole().as_json())
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "quality.png").stat().st_size > 10_000
