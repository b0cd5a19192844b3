"""What `ratchet train` shows of a run: a live picture on a terminal, one line a step elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

Line = dict[str, Any]

FIGURES = {
    "loss": ("loss", "{:.4f}"),
    "eval_loss": ("held-out loss", "{:.4f}"),
    "perplexity": ("held-out perplexity", "{:.2f}"),
    "reward_accuracy": ("reward accuracy", "{:.0%}"),
    "eval_preference_accuracy": ("held-out preference accuracy", "{:.0%}"),
    "eval_reward_accuracy": ("held-out reward accuracy", "{:.0%}"),
    "reward_margin": ("margin", "{:.3f}"),
    "reward": ("reward", "{:.3f}"),
    "kl": ("KL", "{:.3f}"),
    "grad_norm": ("gradient norm", "{:.3g}"),
    "lr": ("learning rate", "{:.2e}"),
    "tokens_s": ("tokens a second", "{:,.0f}"),
    "peak_mb": ("peak memory, MiB", "{:,.0f}"),
}
"""What a progress line may have: its name for people and its form, in the order in which it is shown."""
SHORT = ("loss", "eval_loss", "reward_accuracy", "reward_margin")
"""What a single line has of them."""
BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw values as bars from the lowest to the highest; more than fit are taken together by their means."""
    if not values:
        return ""
    n = min(width, len(values))
    cuts = [len(values) * index // n for index in range(n + 1)]
    means = [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    if high == low:
        return BARS[0] * n
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1))] for mean in means)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as far as there are any: ``1 h 02 min``, ``2 min 05 s``, ``9 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def one_line(line: Line) -> str:
    """A progress line for a log."""
    told = [f"step {line['step']}/{line['steps']}"]
    told += [f"{FIGURES[name][0]} {FIGURES[name][1].format(line[name])}" for name in SHORT if name in line]
    if "eta_s" in line:
        told.append(f"{duration(line['eta_s'])} left")
    return "  ".join(told)


def picture(lines: Sequence[Line], width: int) -> RenderableType:
    """The run so far: how far it is and how long it takes, its losses as a curve, and its last figures.

    Args:
        lines: at least one.
        width: columns there are.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    now = lines[-1]
    head = Table.grid(padding=(0, 1))
    left = f"{duration(now['eta_s'])} left" if "eta_s" in now else ""
    bar = ProgressBar(total=max(1, now["steps"]), completed=now["step"], width=max(10, min(40, width - 40)))
    head.add_row(Text(f"step {now['step']}/{now['steps']}"), bar, Text(left))
    curves = Table.grid(padding=(0, 1))
    for name in ("loss", "eval_loss"):
        values = [line[name] for line in lines if name in line]
        if values:
            ends = f"{values[0]:.4f} → {values[-1]:.4f}"
            curves.add_row(FIGURES[name][0], sparkline(values, max(8, min(60, width - 40))), ends)
    figures = Table.grid(padding=(0, 2))
    for name, (called, form) in FIGURES.items():
        last = next((line[name] for line in reversed(lines) if name in line), None)
        if last is not None and name not in ("loss", "eval_loss"):
            figures.add_row(Text(called), Text(form.format(last)))
    return Group(head, curves, figures)


class TrainingView(AbstractContextManager["TrainingView"]):
    """Shows progress lines as they come; the picture stays as it was last when the view ends.

    Args:
        stream: where to; a picture is drawn where it is a terminal.
        console: in place of the stream's own.
    """

    def __init__(self, stream: TextIO, console: Console | None = None) -> None:
        from rich.console import Console as OnStream

        self._stream = stream
        self._console = console or OnStream(file=stream)
        self._lines: list[Line] = []
        self._live: Live | None = None

    def show(self, line: Line) -> None:
        """Show one more progress line."""
        self._lines.append(line)
        if not self._console.is_terminal:
            self._stream.write(one_line(line) + "\n")
            self._stream.flush()
            return
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(picture(self._lines, self._console.width), refresh=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
