"""The page of error rates, for people: docs/error-rates.md and its picture, out of the table that alerts read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = {
    "drop_alone": "5% below for 3 hours, nothing else",
    "page": "the page (with √(σ²/n + τ²))",
    "cusum": "CUSUM",
    "detector": "e-detector",
    "bernoulli": "Bernoulli CUSUM",
    "drift_rates": "2 points, BH, 3 hours",
    "drift_lengths": "PSI ≥ 0.05, KS with BH, 3 hours",
    "drift_means": "10%, Welch with BH, 3 hours",
    "drift_topics": "JS ≥ 0.1, χ² with BH, 3 hours",
    "drift_terms": "JS ≥ 0.1, χ² with BH, 3 hours",
    "ks_alone": "KS p ≤ 0.05 alone",
}
KINDS = (
    ("Judged quality", ("drop_alone", "page", "cusum", "detector")),
    ("Rates (refusals, uncertain answers, errors)", ("bernoulli", "drift_rates")),
    ("Output lengths (lognormal, σ 0.8)", ("drift_lengths", "ks_alone")),
    ("Means with a long tail (latency, cost; σ of one observation is the mean)", ("drift_means",)),
    ("Topics (a share of all texts goes to the rarest of ten)", ("drift_topics",)),
    ("Terms of such texts", ("drift_terms",)),
)
INTRO = """# How often the rules are wrong

Written by `make error-rates`; do not edit. Each row is {days:,.0f} simulated days of hours in which nothing is wrong
(500 series of 20 days, each with a baseline estimated from {hours} hours of its own), and 500 series a shift for the
delay. Seed {seed}. Alerts read the same figures (`consumers/error_rates.json`) for their expected false alarms a year.

- *hours vary*: standard deviation of hours over the mean, beyond sampling; φ the correlation of neighbouring hours.
- *false alarms a year*: with the 95% interval; 0 seen in {days:,.0f} days still leaves up to {none:.2f} a year.
- *delay*: median hours from the shift to the alarm / the hour by which 90% were found; "–" if not within
  {horizon} hours. A rule of three hours cannot be quicker than 3.
- Judged quality: one answer varies by {cv:.0%} of the mean; with another spread s the same holds for n·({cv:.3f}/s)².
- The drop alone is what a simple monitor does. It is here to compare with, and does not run.
- The Bernoulli CUSUM is told to find 5 points. The rules with BH (Benjamini and Hochberg, over 14 metrics) compare an
  hour with the whole baseline and with the same hour of its week, as the monitor does after two weeks: what moved less
  counts.
- An alert about a shift does not read this page: the same simulation runs with the task's own thresholds, windows and
  variation when it is raised.
- Terms: 2,000 days a row.
- Simulated hours obey the rules' model (normal means, AR(1) effects; binomial counts): what real hours do beyond it
  is for `ratchet drift backtest` on recorded traffic. Judged quality's offsets for the hours of the week are not
  simulated: learned from two weeks without a pattern they add 0 to 70% to these rates (docs/experiments.md).

![False alarms a year by answers judged an hour](error-rates.svg)
"""


def write(table: dict[str, Any], folder: Path) -> None:
    """Write the page and the picture into a folder."""
    folder.joinpath("error-rates.md").write_text("\n".join(_page(table)) + "\n", "utf-8")
    _picture(table["cells"], folder / "error-rates.svg")


def _page(table: dict[str, Any]) -> Iterator[str]:
    none = min(cell["false_alarms"]["high"] for cell in table["cells"])
    yield INTRO.format(
        days=table["days"],
        hours=table["baseline_hours"],
        seed=table["seed"],
        none=none,
        horizon=table["horizon_hours"],
        cv=table["cv"],
    )
    for title, rules in KINDS:
        cells = [cell for cell in table["cells"] if cell["rule"] in rules]
        levels = sorted({cell["level"] for cell in cells})
        changes = list(cells[0]["delay"])
        yield f"## {title}\n"
        level_head = "rate | " if levels != [0.0] else ""
        shown = [f"{float(change):+.0%}" + (" points" if level_head else "") for change in changes]
        yield f"| {level_head}n an hour | hours vary, φ | rule | false alarms a year | " + " | ".join(shown) + " |"
        yield "|" + "---|" * (4 + len(shown) + bool(level_head))
        # the sort is stable: a setting's rules stay together, in the order of `rules`
        for cell in sorted(cells, key=lambda one: (one["level"], one["n"], one["between"], one["phi"])):
            level = f"{cell['level']:.1%} | " if level_head else ""
            false = cell["false_alarms"]
            vary = f"{cell['between']:.1%}, {cell['phi']:g}" if cell["between"] else "not"
            rate = f"{false['per_year']:.2f} ({false['low']:.2f}–{false['high']:.2f})"
            delays = " | ".join(f"{_hours(one['median'])} / {_hours(one['p90'])}" for one in cell["delay"].values())
            yield f"| {level}{cell['n']:,} | {vary} | {NAMES[cell['rule']]} | {rate} | {delays} |"
        yield ""


def _hours(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def _picture(cells: list[dict[str, Any]], target: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "ratchet"  # the same picture is the same file
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True)
    shown = ((0.0, 0.0, "hours vary by chance alone"), (0.02857, 0.0, "by 2.9%, φ 0"), (0.02857, 0.7, "by 2.9%, φ 0.7"))
    for (between, phi, title), axis in zip(shown, axes, strict=True):
        for rule in KINDS[0][1]:
            mine = [c for c in cells if (c["rule"], c["between"], c["phi"]) == (rule, between, phi)]
            ns = [cell["n"] for cell in mine]
            rates, lows, highs = ([cell["false_alarms"][key] for cell in mine] for key in ("per_year", "low", "high"))
            (line,) = axis.plot(ns, [max(rate, 0.02) for rate in rates], marker="o", markersize=3, label=NAMES[rule])
            axis.fill_between(ns, [max(low, 0.02) for low in lows], highs, alpha=0.15, color=line.get_color())
        axis.set(xscale="log", yscale="log", ylim=(0.02, 200), xlabel="answers judged an hour", title=title)
        axis.axhline(1, color="grey", linewidth=0.6)
    axes[0].set_ylabel("false alarms a year (0 is drawn at 0.02)")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)
