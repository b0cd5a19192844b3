"""`ratchet drift backtest` over generated traffic."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.schemas.errors import SettingsError
from ratchet.services.cli.main import app


def backtest(*arguments: str) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["drift", "backtest", "--days", "100", *arguments])


def test_generated_traffic_with_shifts() -> None:
    """A rule's false alarms with their interval and days, and its delay, for each shift; a seed repeats them."""
    arguments = ("--generated", "--per-hour", "600", "--shift", "judge_score=-10%", "--shift", "refusals=+5pp")
    done = backtest(*arguments, "--seed", "3", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert [one["rule"] for one in found] == ["drop_alone", "page", "cusum", "detector", "bernoulli", "drift"]
    for one in found:
        assert one["false_alarms"]["low"] <= one["false_alarms"]["per_year"] <= one["false_alarms"]["high"]
        assert one["delay"]["found"] == 1
    assert json.loads(backtest(*arguments, "--seed", "3", "--json").output) == found
    shown = backtest(*arguments[:3], "--shift", "judge_score=-10%").output
    assert "drift backtest: generated, 600 an hour" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--task '' without --generated; allowed: one of the two"),
        (("--generated", "--task", "t"), "--task 't' with --generated; allowed: one of the two"),
        (("--generated", "--shift", "tone=+5%"), "--shift 'tone=+5%' of metric 'tone'; allowed: judge_score"),
        (("--generated", "--shift", "latency=+5pp"), "--shift 'latency=+5pp' in points; allowed for judge_score"),
    ],
)
def test_what_cannot_be_asked(arguments: tuple[str, ...], says: str) -> None:
    """A bad option is named with its value and what is allowed."""
    failed = backtest(*arguments).exception
    assert isinstance(failed, SettingsError)
    assert says in str(failed)
