"""The demo's picture: completion over time, with the rollouts' stages marked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WINDOW = 20
_GOOD, _BAD, _BASE = "#1b7f5c", "#b3372f", "#6b7280"


def draw(path: Path, timeline: list[dict[str, Any]], decisions: list[dict[str, Any]], report: dict[str, Any]) -> None:
    """Draw ``path`` (PNG).

    Args:
        path: where the picture goes.
        timeline: requests in order: ``at`` (datetime), ``adapter``, ``completed`` (0 or 1).
        decisions: audit rows in order: ``at``, ``action``, ``stage``, ``candidate``.
        report: the report, for the held-out figures in the title.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(12, 5.5), dpi=110)
    start = timeline[0]["at"]

    def minute(at: Any) -> float:
        return float((at - start).total_seconds()) / 60

    x = [minute(row["at"]) for row in timeline]
    done = [float(row["completed"]) for row in timeline]
    rolling = [sum(done[max(0, i - WINDOW + 1) : i + 1]) / min(i + 1, WINDOW) for i in range(len(done))]
    axes.plot(x, rolling, color=_GOOD, linewidth=2, label=f"completion, mean of the last {WINDOW} requests")
    adapters = list(dict.fromkeys(row["adapter"] for row in timeline))
    for adapter in adapters:
        mine = [(minute(row["at"]), float(row["completed"])) for row in timeline if row["adapter"] == adapter]
        level = {1.0: 1.03, 0.0: -0.03}
        axes.scatter(
            [point[0] for point in mine],
            [level[round(point[1])] for point in mine],
            s=7,
            color=_BASE if adapter == "base" else None,
            label=f"{adapter} ({len(mine)} requests)",
        )
    for row in decisions:
        colour = _BAD if row["action"] == "abort" else _BASE
        axes.axvline(minute(row["at"]), color=colour, linewidth=0.9, linestyle="--")
        label = {"abort": "rolled back", "promote": "promoted"}.get(row["action"], row["stage"])
        axes.text(minute(row["at"]), 1.08, f" {label}", rotation=60, fontsize=8, color=colour, va="bottom")
    before, after = report["completion_before"], report["completion_after"]
    if before and after:
        axes.set_title(
            "held-out completion: "
            f"{before['rate']:.0%} [{before['low']:.0%}, {before['high']:.0%}] before, "
            f"{after['rate']:.0%} [{after['low']:.0%}, {after['high']:.0%}] after (n = {before['n']}, {after['n']})",
            pad=62,
        )
    axes.set_ylim(-0.08, 1.08)
    axes.set_xlabel("minutes since the first request")
    axes.set_ylabel("share of requests that completed")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
