"""The picture of an evaluation matrix: every metric of base, stable and candidate with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDES = {"base": "#6b7280", "stable": "#2b5f9e", "candidate": "#1b7f5c"}
_VERDICTS = {"pass": "#1b7f5c", "fail": "#b3372f", "error": "#b3372f", "inconclusive": "#a8741a"}


def draw(path: Path, result: dict[str, Any]) -> None:
    """Draw one row a metric, each with an axis of its own, since their units differ.

    Args:
        path: where the picture goes; its ending says which kind it is.
        result: ``matrix`` and ``gates``, as `matrix_now` gives them.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "ratchet"  # the same picture is the same file
    table, gates = result["matrix"], {gate["metric"]: gate for gate in result["gates"]}
    sides = [side for side in SIDES if side in table["models"]]
    rows = list(table["metrics"].items())
    height = 0.62 * len(rows) + 1.3
    figure, axes = plt.subplots(len(rows), 1, figsize=(8.6, height), squeeze=False)
    for (metric, row), axis in zip(rows, axes[:, 0], strict=True):
        for place, side in enumerate(sides):
            if (found := row.get(side)) and found["value"] is not None:
                _point(axis, found, place, SIDES[side], row["kind"] == "rate")
        axis.set_ylim(len(sides) - 0.4, -0.6)
        axis.set_yticks([])
        axis.set_ylabel(metric, rotation=0, ha="right", va="center", fontsize=8)
        axis.tick_params(axis="x", labelsize=6, length=2)
        axis.spines[["top", "right", "left"]].set_visible(False)
        if gate := gates.get(metric):
            _gate(axis, gate, row)
    handles = [
        plt.Line2D([], [], color=SIDES[side], marker="o", label=f"{side}: {table['models'][side]}") for side in sides
    ]
    figure.legend(handles=handles, loc="upper center", ncol=len(sides), fontsize=7, frameon=False)
    figure.supxlabel(f"{table['confidence']:.0%} intervals; the dotted line is a gate's floor or ceiling", fontsize=7)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.45 / height))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=120)
    plt.close(figure)


def _point(axis: Any, found: dict[str, Any], place: int, colour: str, rate: bool) -> None:
    low, high = found["value"] - found["low"], found["high"] - found["value"]
    errors = [[max(low, 0.0)], [max(high, 0.0)]]
    axis.errorbar([found["value"]], [place], xerr=errors, fmt="o", markersize=4, color=colour, capsize=2, linewidth=1.2)
    if rate:
        axis.set_xlim(-0.02, 1.02)


def _gate(axis: Any, gate: dict[str, Any], row: dict[str, Any]) -> None:
    colour = _VERDICTS[gate["verdict"]]
    axis.text(1.01, 0.5, gate["verdict"], transform=axis.transAxes, fontsize=7, color=colour, va="center")
    if gate["stable"] is None and gate["bound"] is not None:
        axis.axvline(gate["bound"], color=colour, linewidth=0.8, linestyle=":")
