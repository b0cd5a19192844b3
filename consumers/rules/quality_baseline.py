"""What judged quality is compared with: mean, noise of one answer, noise between hours, and how hours hang together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from math import isfinite, sqrt
from statistics import fmean, median

from ratchet.consumers.rules.measurement import HourValue

WEEK = 168
PHI_MOST = 0.95


@dataclass(frozen=True, slots=True)
class Baseline:
    """A metric's normal behaviour, hour by hour.

    Attributes:
        mean: b, in the metric's unit.
        variance: σ² of one observation, pooled within hours.
        between: τ², the variance between hours beyond what σ²/n explains.
        phi: φ, the correlation of neighbouring hours' effects, 0–0.95.
        n: the median hour's (effective) number of observations.
        hours: judged hours that it rests on.
        se: standard error of ``mean``, φ taken into account.
        of_week: what to add to ``mean`` in each hour of the week (Monday 00:00 UTC first), shrunk towards 0; empty
            where there were not two weeks.
        abstains: why there is nothing to compare with; every rule then abstains and says so.
    """

    mean: float = 0.0
    variance: float = 0.0
    between: float = 0.0
    phi: float = 0.0
    n: float = 0.0
    hours: int = 0
    se: float = 0.0
    of_week: tuple[float, ...] = ()
    abstains: str | None = None

    def expected(self, hour: datetime) -> float:
        """The mean that this hour would have if nothing had changed."""
        return self.mean + self.of_week[hour_of_week(hour)] if self.of_week else self.mean


def hour_of_week(hour: datetime) -> int:
    """0 for Monday 00:00 UTC to 167."""
    utc = hour.astimezone(UTC)
    return utc.weekday() * 24 + utc.hour


def fault(hour: HourValue, min_n: float) -> str:
    """Why an hour cannot be judged; empty if it can.

    Raises:
        ValueError: the hour has no time zone, so that nobody knows when it was.
    """
    if hour.hour.tzinfo is None:
        raise ValueError(f"hour={hour.hour.isoformat()}; allowed: a time with a zone")
    for name, value in (("n", hour.n), ("mean", hour.mean), ("variance", hour.variance)):
        if not isfinite(value):
            return f"{name} is {value}"
    if hour.n < min_n:
        return f"n={hour.n:g} is below {min_n:g}"
    if hour.variance < 0:
        return f"variance={hour.variance:g} is negative"
    return ""


def estimate(hours: Iterable[HourValue], *, min_n: float, min_hours: int = 24) -> Baseline:
    """Estimate a baseline from hours in which nothing was wrong.

    τ² is DerSimonian and Laird's moment estimator (1986) with weights w = n/σ²: (Q − (k − 1)) / (Σw − Σw²/Σw), Q the
    weighted sum of squares about the weighted mean, cut at 0. Hours that move together make Q too small by
    1 − (1/k²)·ΣΣφ^|i−j|, which is divided out. φ is the mean product of neighbouring hours over τ² (sampling noise is
    independent over hours, so it does not enter), lifted by Kendall's (1 + 3φ)/k for its bias downwards (1954).
    With two weeks or more, hours of the week get an offset of their own, shrunk by how much of their spread is more
    than chance (empirical Bayes), so that a metric without a weekly pattern loses nothing.

    Args:
        hours: in any order; an hour that comes twice counts as its last value. Hours below ``min_n`` or with a NaN are
            left out.
        min_n: observations below which an hour is left out.
        min_hours: with fewer judged hours the baseline abstains.

    Returns:
        The baseline; with ``abstains`` where there are too few hours, or where 5% below the mean has no meaning.
    """
    latest = {hour.hour: hour for hour in hours if not fault(hour, min_n)}
    judged = [latest[at] for at in sorted(latest)]
    k = len(judged)
    if k < max(min_hours, 3):
        return Baseline(hours=k, abstains=f"{k} judged hours, fewer than {max(min_hours, 3)}")
    total = sum(hour.n for hour in judged)
    variance = sum(hour.n * hour.variance for hour in judged) / total
    mean = sum(hour.n * hour.mean for hour in judged) / total
    typical = median(hour.n for hour in judged)
    if mean <= 0:
        return Baseline(mean=mean, n=typical, hours=k, abstains=f"a mean of {mean:g} is not above 0")
    of_week, used = _of_week(judged, mean)
    start = Baseline(mean=mean, variance=variance, n=typical, hours=k, of_week=of_week)
    rest = [hour.mean - start.expected(hour.hour) for hour in judged]
    between = dersimonian_laird(rest, [hour.n for hour in judged], variance, used)
    phi = 0.0
    if between > 0:
        centre = fmean(rest)
        step = timedelta(hours=1)
        pairs = [
            (rest[i] - centre) * (rest[i + 1] - centre)
            for i in range(k - 1)
            if judged[i + 1].hour - judged[i].hour == step
        ]
        phi = autocorrelation(fmean(pairs) if pairs else 0.0, between, k)
        between /= 1 - mean_correlation(phi, k)
    # weights of the random-effects mean, at last
    weights = [1 / (between + variance / hour.n) if between + variance > 0 else hour.n for hour in judged]
    shift = sum(w * y for w, y in zip(weights, rest, strict=True)) / sum(weights)
    se = sqrt((variance / typical + between * (1 + phi) / (1 - phi)) / k)
    return replace(start, mean=mean + shift, between=between, phi=phi, se=se)


def dersimonian_laird(means: Sequence[float], ns: Sequence[float], variance: float, used: float = 0.0) -> float:
    """τ², the variance between hours beyond sampling noise; ``used`` degrees of freedom went into the means."""
    k = len(means)
    if variance == 0:  # every answer in an hour alike: what is left between hours is all between hours
        centre = fmean(means)
        return sum((mean - centre) ** 2 for mean in means) / (k - 1 - used)
    weights = [n / variance for n in ns]
    total = sum(weights)
    centre = sum(w * mean for w, mean in zip(weights, means, strict=True)) / total
    q = sum(w * (mean - centre) ** 2 for w, mean in zip(weights, means, strict=True)) * (k - 1) / (k - 1 - used)
    return max(0.0, (q - (k - 1)) / (total - sum(w * w for w in weights) / total))


def autocorrelation(product: float, between: float, k: int) -> float:
    """φ from the mean product of neighbours and τ², both above sampling noise, less the bias of a short series."""
    phi = product / between
    return min(max(phi + (1 + 3 * phi) / k, 0.0), PHI_MOST) if phi > 0 else 0.0


def mean_correlation(phi: float, k: int) -> float:
    """(1/k²)·ΣΣφ^|i−j|: how much of the variance of hours is lost to their common mean."""
    return ((1 + phi) / (1 - phi) - 2 * phi * (1 - phi**k) / (k * (1 - phi) ** 2)) / k


def _of_week(judged: Sequence[HourValue], mean: float) -> tuple[tuple[float, ...], float]:
    """Shrunk offsets of the hours of the week, and the degrees of freedom they used; none before two weeks."""
    if judged[-1].hour - judged[0].hour < timedelta(hours=2 * WEEK - 1):
        return (), 0.0
    groups: dict[int, list[float]] = defaultdict(list)
    for hour in judged:
        groups[hour_of_week(hour.hour)].append(hour.mean - mean)
    spare = len(judged) - len(groups)
    if spare < WEEK // 2:
        return (), 0.0
    centres = {at: fmean(values) for at, values in groups.items()}
    within = sum((value - centres[at]) ** 2 for at, values in groups.items() for value in values) / spare
    chance = fmean(within / len(values) for values in groups.values())
    middle = fmean(centres.values())
    signal = max(0.0, sum((c - middle) ** 2 for c in centres.values()) / (len(centres) - 1) - chance)
    if signal == 0:
        return (), 0.0
    kept = {at: signal / (signal + within / len(values)) for at, values in groups.items()}
    offsets = tuple(kept[at] * (centres[at] - middle) if at in kept else 0.0 for at in range(WEEK))
    return offsets, sum(kept.values()) * (1 - 1 / len(kept))
