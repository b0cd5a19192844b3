"""The table of error rates: what the simulation gives, the research's figures again, and how it is read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ratchet.consumers.error_rates import expected_false_alarms, expected_for, table
from ratchet.consumers.error_rates_table import SEED, Setting, cells, settings
from ratchet.consumers.rules import simulation
from ratchet.consumers.rules.quality import Thresholds
from ratchet.consumers.rules.quality_baseline import Baseline
from ratchet.consumers.rules.simulation import Noise, delay, false_alarms, quality, quality_rules

RULES = quality_rules(Thresholds(min_n=10))


def known(n: float, between: float = 0.0, phi: float = 0.0) -> Noise:
    """Hours whose baseline is the truth, as the research had them."""
    return Noise(n, between, phi, baseline_hours=0)


@pytest.mark.parametrize(
    ("noise", "rule", "per_year"),
    [
        (known(10), "drop_alone", 365 / 4.4),
        (known(20), "drop_alone", 365 / 15),
        (known(50), "drop_alone", 365 / 362),
        (known(50, 0.12 / 4.2, 0.7), "drop_alone", 51),
        (known(50, 0.12 / 4.2, 0.7), "page", 0.5),
    ],
)
def test_the_researchs_false_alarms(noise: Noise, rule: str, per_year: float) -> None:
    """10,000 days: a false page every 4.4, 15 and 362 days at n = 10, 20, 50; hours that hang together 51 → 0.5."""
    found = false_alarms(quality(np.random.default_rng(1), RULES, noise, 500, 480)[rule])
    # half the distance to a figure that was itself rounded is no disagreement
    assert found.low * 0.95 <= per_year <= found.high * 1.05, found


def test_the_researchs_delays() -> None:
    """With 50 an hour, 5/7/10% are found in 14 / 5.6 / 3.3 hours by the drop alone and 6.3 / 3.8 / 2.4 by CUSUM."""
    random = np.random.default_rng(2)
    for change, drop, cusum in ((-0.05, 14, 6.3), (-0.07, 5.6, 3.8), (-0.10, 3.3, 2.4)):
        raised = quality(random, RULES, known(50), 1000, simulation.WARM + 150, change)
        assert delay(raised["drop_alone"], simulation.WARM).mean == pytest.approx(drop, rel=0.08)
        assert delay(raised["cusum"], simulation.WARM).mean == pytest.approx(cusum, rel=0.08)


def test_the_detectors_bound_holds_where_its_baseline_is_true() -> None:
    """With 1/α = 500 hours the e-detector raises less than every 500 hours, whether hours hang together or not."""
    rules = {"detector": quality_rules(Thresholds(min_n=10, mean_hours=500))["detector"]}
    for noise in (known(50), known(200, 0.03, 0.7)):
        raised = quality(np.random.default_rng(3), rules, noise, 100, 480)["detector"]
        assert raised.size / raised.sum() >= 500


@pytest.mark.parametrize(
    "setting",
    [
        Setting("quality", Noise(50, 0.12 / 4.2, 0.7)),
        Setting("rates", Noise(500, 0.1, 0.7), 0.02),
        Setting("means", Noise(500, 0.05, 0.7, cv=1.0)),
    ],
)
def test_the_committed_table_is_what_the_simulation_gives(setting: Setting) -> None:
    """Two settings simulated anew: the very cells in the data file."""
    assert setting in settings()
    keys = ("level", "n", "between", "phi")
    made = list(cells(setting))
    rules = {cell["rule"] for cell in made}
    committed = [
        cell for cell in table()["cells"] if cell["rule"] in rules and all(cell[key] == made[0][key] for key in keys)
    ]
    assert committed == json.loads(json.dumps(made))


def test_the_table_is_whole() -> None:
    """Every setting has its rules, each with 10,000 days."""
    whole = table()
    assert (whole["seed"], whole["days"]) == (SEED, 10_000)
    per_kind = {"quality": 4, "rates": 2, "lengths": 2, "means": 1, "topics": 1, "terms": 1}
    assert len(whole["cells"]) == sum(per_kind[setting.kind] for setting in settings())
    days = {cell["rule"]: cell["false_alarms"]["days"] for cell in whole["cells"]}
    assert {rule: n for rule, n in days.items() if n != 10_000} == {"drift_terms": 2_000}


def test_the_page_shows_the_table() -> None:
    """docs/error-rates.md has a row a cell, with the figures of the data file."""
    page = Path(__file__).parents[3].joinpath("docs/error-rates.md").read_text("utf-8")
    for cell in table()["cells"]:
        false = cell["false_alarms"]
        assert f"{false['per_year']:.2f} ({false['low']:.2f}–{false['high']:.2f})" in page


def test_between_grid_points_the_worst_cell_counts() -> None:
    """A figure asked for is never better than the cells around it, and one on the grid is that cell's."""
    exact = expected_false_alarms("drop_alone", 50, between=0.02857, phi=0.7)
    assert 40 < exact.per_year < 65
    assert exact.note == ""
    assert expected_false_alarms("drop_alone", 60, between=0.02857, phi=0.65).per_year >= exact.per_year
    assert expected_false_alarms("drop_alone", 50).per_year < 2


def test_another_spread_is_another_number_of_answers() -> None:
    """Answers with twice the spread need four times the number for the same standard error."""
    assert expected_false_alarms("page", 200, cv=2 * table()["cv"]) == expected_false_alarms("page", 50)


def test_what_the_table_does_not_cover_is_said() -> None:
    """Outside the grid, with a short baseline or other thresholds: the nearest cell, and a note of what is off."""
    far = expected_false_alarms("page", 5, between=0.5, phi=0.93, baseline_hours=48, thresholds=Thresholds(hours=2))
    assert "n=5 is outside the table's 10–2000" in far.note
    assert "between=0.5 is outside" in far.note
    assert "phi=0.93 is outside" in far.note
    assert "a baseline of 48 hours, the table's have 336" in far.note
    assert "hours=2 instead of the table's 3" in far.note
    assert expected_false_alarms("page", 100, thresholds=Thresholds(min_n=50)).note == ""


def test_bad_questions_are_refused() -> None:
    """An unknown rule and a NaN are named with what is allowed."""
    with pytest.raises(ValueError, match=r"rule='pgae'; allowed: bernoulli, cusum, detector"):
        expected_false_alarms("pgae", 50)
    with pytest.raises(ValueError, match=r"n_per_hour=nan; allowed: a number >= 0"):
        expected_false_alarms("page", float("nan"))


def test_a_baseline_is_looked_up_as_it_is() -> None:
    """The alert's question: figures of the baseline's own n, spread, τ and φ; one that abstains has no rate."""
    base = Baseline(mean=0.8, variance=(0.8 * table()["cv"]) ** 2, between=0.0004, phi=0.5, n=100, hours=336)
    asked = expected_false_alarms("cusum", 100, between=0.025, phi=0.5)
    assert expected_for("cusum", base).per_year == asked.per_year
    refusals = Baseline(mean=0.02, variance=0.0196, n=500, hours=400)
    assert expected_for("bernoulli", refusals).note == ""
    with pytest.raises(ValueError, match="fewer than 24"):
        expected_for("page", replace(base, abstains="3 judged hours, fewer than 24"))
