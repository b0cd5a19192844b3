"""What is left of an hour after what the hours before predict: news that is independent from hour to hour.

The model: hour mean x = b + u + ε, with ε sampling noise of variance σ²/n and u an AR(1) effect of variance τ² and
correlation φ between neighbours. A Kalman filter's residual (x less its prediction, over its standard deviation) is
then standard normal and independent over hours, so that control charts keep their promise (L. C. Alwan and
H. V. Roberts 1988; C. W. Lu and M. R. Reynolds 1999 for AR(1) plus noise). The price is stated too: a lasting fall is
partly taken for an effect that will pass, and only its ``lasting`` share shows in the residuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, sqrt

from ratchet.consumers.rules.quality_baseline import Baseline

K_LEAST, K_MOST = 0.25, 1.0


@dataclass(frozen=True, slots=True)
class Filter:
    """What is known of the last hour's effect u: its mean and its variance."""

    effect: float
    spread: float


def start(baseline: Baseline) -> Filter:
    """Before the first hour: an effect of 0 that varies as effects do."""
    return Filter(0.0, baseline.between)


def fade(known: Filter, baseline: Baseline, hours: int) -> Filter:
    """What is known of the effect ``hours`` later, with nothing seen in between."""
    kept = baseline.phi**hours
    return Filter(kept * known.effect, baseline.between + kept * kept * (known.spread - baseline.between))


def observe(known: Filter, baseline: Baseline, deviation: float, n: float) -> tuple[float, float, Filter]:
    """Compare an hour with its prediction.

    Args:
        known: the effect as predicted for this hour.
        baseline: σ², τ² and φ; σ² + τ² > 0.
        deviation: the hour's mean less its expected mean.
        n: observations of the hour, > 0.

    Returns:
        The standardised residual, its standard deviation in the metric's unit, and what is now known of the effect.
    """
    total = known.spread + baseline.variance / n
    gain = known.spread / total
    ahead = deviation - known.effect
    return ahead / sqrt(total), sqrt(total), Filter(known.effect + gain * ahead, known.spread * (1 - gain))


def lasting(baseline: Baseline) -> tuple[float, float]:
    """The share of a lasting shift that the residuals keep showing, and their standard deviation, in typical hours.

    The filter's steady state (scalar Riccati equation): P² + P·(R·(1 − φ²) − Q) − Q·R = 0 with R = σ²/n and
    Q = (1 − φ²)·τ²; gain K = P/(P + R); share (1 − φ)/(1 − φ + φ·K).
    """
    phi = baseline.phi
    noise = baseline.variance / baseline.n
    drive = (1 - phi * phi) * baseline.between
    half = (noise * (1 - phi * phi) - drive) / 2
    spread = sqrt(half * half + drive * noise) - half
    gain = spread / (spread + noise)
    return (1 - phi) / (1 - phi + phi * gain), sqrt(spread + noise)


def reference(baseline: Baseline, drop: float) -> float:
    """CUSUM's k: half of a relative fall in the residuals' units, kept within 0.25 and 1."""
    share, sd = lasting(baseline)
    return min(max(drop * baseline.mean * share / sd / 2, K_LEAST), K_MOST)


def siegmund_limit(k: float, mean_hours: float) -> float:
    """CUSUM's h for a wanted mean time between false alarms.

    Solves ARL = (e^v − 1 − v) / (2k²) with v = 2k·(h + 1.166) (D. Siegmund, Sequential Analysis, 1985, §II.6; within a
    few per cent of the exact figure for normal observations).
    """
    target = 2 * k * k * mean_hours + 1
    v = log(target)
    for _ in range(40):  # a contraction: the derivative is 1/(target + v)
        v = log(target + v)
    return max(v / (2 * k) - 1.166, 0.1)


def mean_time(k: float, h: float) -> float:
    """Siegmund's mean time between false alarms of a CUSUM with k and h, in observations."""
    v = 2 * k * (h + 1.166)
    return (exp(v) - 1 - v) / (2 * k * k)
