"""What the rules over distributions do in the long run: lengths of lognormal traffic, hour by hour.

The limits here are the defaults of the drift rules: PSI 0.1, a mean moved by 10%, a rate by 2 points.
"""

from __future__ import annotations

import numpy as np

from ratchet.consumers.rules.drift_arrays import DriftLimits, among, length_distances, mean_distances, persistent
from ratchet.consumers.rules.quality_arrays import Baselines, Bools, Floats
from ratchet.consumers.rules.simulation import WARM, Noise, Rule, effects

PSI, RELATIVE, POINTS = 0.1, 0.1, 0.02
MIN_SHARES = 500
SIGMA = 0.8  # of the logarithm of a length
_BINS = 20


def lengths(
    random: np.random.Generator,
    noise: Noise,
    series: int,
    hours: int,
    change: float = 0.0,
    limits: DriftLimits | None = None,
) -> dict[str, Bools]:
    """Where the rule over lengths is raised, and where Kolmogorov–Smirnov's p alone (in the same hours) would be.

    Args:
        random: seeded by the caller.
        noise: ``n`` answers an hour; ``between`` is the relative SD of hours' typical length.
        series: of hours, each with a baseline of its own.
        hours: in each series.
        change: relative, from hour ``WARM`` on.
        limits: of the rule; the default ones without it.
    """
    from scipy.special import ndtr, ndtri

    limits = limits or DriftLimits(PSI, min_n=MIN_SHARES)
    n = int(noise.n)
    edges = ndtri(np.arange(1, _BINS) / _BINS)
    even = np.full(_BINS, 1 / _BINS)
    # a baseline's hours vary as well; over its many hours that averages to nearly nothing
    before = random.multinomial(n * noise.baseline_hours, even, series)[:, None, :]
    moved = np.where(np.arange(hours) >= WARM, np.log1p(change), 0.0)
    place = (noise.between * effects(random, series, hours, noise.phi) + moved) / SIGMA
    below = ndtr(edges - place[..., None])
    whole = np.concatenate([below, np.ones((*place.shape, 1))], -1)
    shares = np.diff(whole, axis=-1, prepend=0.0)
    effect, p = length_distances(before, random.multinomial(n, shares))
    judged = np.full(place.shape, n >= limits.min_n)
    over = among(random, p, judged & (effect >= limits.effect), limits)
    return {
        "drift_lengths": persistent(over, judged, limits.hours),
        "significance_alone": persistent(judged & (p <= limits.q), judged, 1),
    }


def mean_rule(random: np.random.Generator, relative: bool, limits: DriftLimits | None = None) -> Rule:
    """The drift rule over means (``relative``) or rates, for hours as the sequential rules read them."""
    limits = limits or DriftLimits(RELATIVE if relative else POINTS)

    def moved(mean: Floats, n: Floats, base: Baselines) -> Bools:
        centre = base.mean[:, None]
        spread = base.variance[:, None] if relative else centre * (1 - centre)
        judged = np.isfinite(mean) & (n >= limits.min_n)
        seen = np.where(judged, mean, centre)
        effect, p = mean_distances(seen, n, spread, centre, (base.n * base.hours)[:, None], relative)
        over = among(random, p, judged & (effect >= limits.effect), limits)
        return persistent(over, judged, limits.hours)

    return moved
