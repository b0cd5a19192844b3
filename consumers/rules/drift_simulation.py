"""What the rules over distributions and rates do in the long run, hour by hour.

An hour is compared with the same hour of the baseline's week, as the monitor does once there are two weeks: both vary,
and a week later the same baseline hours come again. Bins are tenths and twentieths of the true distribution; the
report cuts at the baseline's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratchet.consumers.rules.drift_arrays import DriftLimits, among, length_distances, mean_distances, persistent
from ratchet.consumers.rules.measuring import MIN_MEANS, MIN_SHARES
from ratchet.consumers.rules.quality_arrays import Baselines, Bools, Floats
from ratchet.consumers.rules.quality_baseline import WEEK
from ratchet.consumers.rules.simulation import WARM, Noise, Rule, counts, effects
from ratchet.schemas.drift_policy import DriftPolicy

RATES = ("refusals", "uncertainty", "errors")
LENGTHS = ("answer_length", "prompt_length")
METRICS = 14  # in a report: those whose p-values an hour's is held against
SIGMA = 0.8  # of the logarithm of a length
_BINS = 20


def limits(metric: str, policy: DriftPolicy | None = None) -> DriftLimits:
    """What the drift rule over a metric is set to by a task's policy, or by the default one."""
    policy = policy or DriftPolicy()
    kind = policy.psi if metric in LENGTHS else policy.difference if metric in RATES else policy.relative
    least = MIN_SHARES if metric in LENGTHS else MIN_MEANS
    return DriftLimits(policy.thresholds.get(metric, kind), policy.alpha, policy.persistence, METRICS, least)


def lengths(
    random: np.random.Generator,
    noise: Noise,
    series: int,
    hours: int,
    change: float = 0.0,
    set_to: DriftLimits | None = None,
) -> dict[str, Bools]:
    """Where the rule over lengths is raised, and where Kolmogorov–Smirnov's p alone (in the same hours) would be.

    Args:
        random: seeded by the caller.
        noise: ``n`` answers an hour; ``between`` is the relative SD of hours' typical length.
        series: of hours, each with a baseline of its own.
        hours: in each series.
        change: relative, from hour ``WARM`` on.
        set_to: the rule's limits; the default ones without it.
    """
    from scipy.special import ndtr, ndtri

    rule = set_to or limits("answer_length")
    edges = ndtri(np.arange(1, _BINS) / _BINS)

    def counted(place: Floats) -> NDArray[np.int64]:
        below = ndtr(edges - place[..., None] / SIGMA)
        whole = np.concatenate([below, np.ones((*place.shape, 1))], -1)
        return random.multinomial(int(noise.n), np.diff(whole, axis=-1, prepend=0.0))

    week = counted(noise.between * effects(random, series, WEEK, noise.phi))
    moved = np.where(np.arange(hours) >= WARM, np.log1p(change), 0.0)
    now = counted(noise.between * effects(random, series, hours, noise.phi) + moved)
    effect, p = length_distances(week[:, np.arange(hours) % WEEK], now)
    judged = np.full(p.shape, noise.n >= rule.min_n)
    over = among(random, p, judged & (effect >= rule.effect), rule)
    return {
        "drift_lengths": persistent(over, judged, rule.hours),
        "ks_alone": persistent(judged & (p < rule.q), judged, 1),
    }


def rates(
    random: np.random.Generator,
    level: float,
    noise: Noise,
    series: int,
    hours: int,
    change: float = 0.0,
    set_to: DriftLimits | None = None,
) -> dict[str, Bools]:
    """Where the drift rule over a rate around ``level`` is raised; arguments as ``lengths`` has them."""
    rule = set_to or limits("refusals")
    week = counts(random, level, noise, series, WEEK)[:, np.arange(hours) % WEEK]
    moved = np.where(np.arange(hours) >= WARM, change, 0.0)
    now = counts(random, level, noise, series, hours, moved)
    n = np.full(now.shape, noise.n)
    both = (week + now) / 2
    effect, p = mean_distances(now, n, both * (1 - both), week, n, relative=False)
    judged = n >= rule.min_n
    over = among(random, p, judged & (effect >= rule.effect), rule)
    return {"drift_rates": persistent(over, judged, rule.hours)}


def mean_rule(random: np.random.Generator, rule: DriftLimits, relative: bool) -> Rule:
    """The drift rule over means (``relative``) or rates beside the whole baseline, as before two weeks have passed."""

    def moved(mean: Floats, n: Floats, base: Baselines) -> Bools:
        centre = base.mean[:, None]
        spread = base.variance[:, None] if relative else centre * (1 - centre)
        judged = np.isfinite(mean) & (n >= rule.min_n)
        seen = np.where(judged, mean, centre)
        effect, p = mean_distances(seen, n, spread, centre, (base.n * base.hours)[:, None], relative)
        return persistent(among(random, p, judged & (effect >= rule.effect), rule), judged, rule.hours)

    return moved
