"""What `ratchet train` shows of a run."""

import io
import os
import pty
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ratchet.services.cli.training_view import BARS, TrainingView, duration, one_line, sparkline

LINES: list[dict[str, Any]] = [
    {"step": 1, "steps": 4, "loss": 0.6931, "grad_norm": 1.25, "reward_accuracy": 0.0, "reward_margin": 0.0,
     "tokens_s": 1234.5, "peak_mb": 700.0, "eta_s": 125.0},
    {"step": 2, "steps": 4, "loss": 0.5, "reward_accuracy": 0.75, "reward_margin": 0.5, "eval_loss": 0.6, "eta_s": 9.0},
]  # fmt: skip


def test_elsewhere_than_on_a_terminal_each_step_is_a_line() -> None:
    """No control characters, and the figures that matter most."""
    stream = io.StringIO()
    with TrainingView(stream) as view:
        for line in LINES:
            view.show(line)
    assert stream.getvalue() == (
        "step 1/4  loss 0.6931  reward accuracy 0%  margin 0.000  2 min 05 s left\n"
        "step 2/4  loss 0.5000  held-out loss 0.6000  reward accuracy 75%  margin 0.500  9 s left\n"
    )


def test_on_a_terminal_the_run_is_a_picture() -> None:
    """A bar, the time left, both losses as curves with their ends, and the last of every figure there ever was."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None, legacy_windows=False)
    with TrainingView(stream, console) as view:
        for line in LINES:
            view.show(line)
    last = stream.getvalue().rsplit("\x1b[1A", 1)[-1]
    for said in ("step 2/4", "━", "9 s left", "0.6931 → 0.5000", "held-out loss", "█▁", "75%", "0.500", "1,234", "700"):
        assert said in last, said


def test_a_real_terminal_gets_the_picture_and_keeps_it() -> None:
    """Behind a pseudo-terminal the lines are drawn over each other, and what is told meanwhile stands above."""
    code = (
        "import sys, typer\n"
        "from ratchet.services.cli.training_view import TrainingView\n"
        "with TrainingView(sys.stderr) as view:\n"
        "    view.show({'step': 1, 'steps': 2, 'loss': 2.0, 'eta_s': 1.0})\n"
        "    typer.echo('a word between', err=True)\n"
        "    view.show({'step': 2, 'steps': 2, 'loss': 1.0, 'eta_s': 0.0})\n"
    )
    master, terminal = pty.openpty()
    try:
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
        child = subprocess.Popen([sys.executable, "-c", code], stderr=terminal, env=environment)
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(master, 65_536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not part:
                break
            shown += part
        assert child.wait(60) == 0
    finally:
        os.close(master)
    text = shown.decode()
    assert "\x1b[1A" in text  # the cursor went up: drawn over, not below
    assert text.index("a word between") < text.index("step 2/2")
    assert "2.0000 → 1.0000" in text
    assert text.endswith("\x1b[?25h")  # and the cursor is shown again


@given(st.lists(st.floats(-1e9, 1e9), max_size=200), st.integers(1, 60))
def test_a_sparkline_is_as_wide_as_it_may_be(values: list[float], width: int) -> None:
    """One bar a value as long as they fit, the lowest and the highest bar among them where values differ."""
    drawn = sparkline(values, width)
    assert len(drawn) == min(width, len(values))
    assert set(drawn) <= set(BARS)
    if 1 < len(values) <= width and len(set(values)) > 1:
        assert drawn[values.index(min(values))] == BARS[0]
        assert drawn[values.index(max(values))] == BARS[-1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3599.7, "1 h 00 min"), (3720, "1 h 02 min")],
)
def test_time_is_told_as_people_tell_it(seconds: float, said: str) -> None:
    """Rounded first, so there are never sixty seconds."""
    assert duration(seconds) == said


def test_a_provider_s_line_has_fewer_figures() -> None:
    """A managed job tells no time and no rewards."""
    assert one_line({"step": 3, "steps": 9, "loss": 1.5}) == "step 3/9  loss 1.5000"
