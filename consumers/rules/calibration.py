"""A judge against people, in figures: agreement, κ, error rates, and what a judged rate or mean is without its errors.

Everything is computed from sums that add up, so ClickHouse can make them of any number of answers. Weights are
inverse inclusion probabilities; variances are those of the Hájek (ratio) estimator, which for equal weights is the
plain mean's σ²/n with the population's σ² (divisor n).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

from ratchet.consumers.rules.intervals import wilson

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of ``n`` observations with its variance and 95% interval."""

    n: int
    value: float
    variance: float
    low: float
    high: float

    def __str__(self) -> str:
        """The figure as tables show it: ``0.712 [0.650, 0.774] n = 200``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n = {self.n}"


@dataclass(frozen=True, slots=True)
class Sums:
    """Weighted sums over observations of two values ``y`` and ``f``; adding two gives those of both sets.

    ``w`` is Σw, ``ww`` Σw², ``wwyf`` Σw²·y·f, and so on. Where there is but one value, it is ``f``.
    """

    n: int = 0
    w: float = 0.0
    ww: float = 0.0
    wy: float = 0.0
    wf: float = 0.0
    wwy: float = 0.0
    wwf: float = 0.0
    wwyy: float = 0.0
    wwff: float = 0.0
    wwyf: float = 0.0

    @classmethod
    def of(cls, items: Iterable[tuple[float, float, float]]) -> Self:
        """Sum ``(y, f, weight)``.

        Raises:
            ValueError: a value that is not finite, or a weight that is not above 0.
        """
        n, sums = 0, [0.0] * 9
        for y, f, w in items:
            if not (math.isfinite(y) and math.isfinite(f)):
                raise ValueError(f"y={y}, f={f}; allowed: finite numbers")
            if not (math.isfinite(w) and w > 0):
                raise ValueError(f"weight {w}; allowed: a finite number above 0")
            n, ww = n + 1, w * w
            for at, term in enumerate((w, ww, w * y, w * f, ww * y, ww * f, ww * y * y, ww * f * f, ww * y * f)):
                sums[at] += term
        return cls(n, *sums)

    def __add__(self, other: Sums) -> Sums:
        """The sums over both sets of observations."""
        return Sums(*(getattr(self, name) + getattr(other, name) for name in Sums.__slots__))

    @property
    def effective_n(self) -> float:
        """Kish's effective number of observations, (Σw)² / Σw²."""
        return self.w * self.w / self.ww if self.n else 0.0

    @property
    def mean_y(self) -> float:
        """The weighted mean of ``y``."""
        return self.wy / self.w

    @property
    def mean_f(self) -> float:
        """The weighted mean of ``f``."""
        return self.wf / self.w

    @property
    def variance_y(self) -> float:
        """The variance of the mean of ``y``."""
        return max(0.0, self.wwyy - 2 * self.mean_y * self.wwy + self.mean_y**2 * self.ww) / self.w**2

    @property
    def variance_f(self) -> float:
        """The variance of the mean of ``f``."""
        return max(0.0, self.wwff - 2 * self.mean_f * self.wwf + self.mean_f**2 * self.ww) / self.w**2

    @property
    def covariance(self) -> float:
        """The covariance of the two means."""
        y, f = self.mean_y, self.mean_f
        return (self.wwyf - y * self.wwf - f * self.wwy + y * f * self.ww) / self.w**2


NOTHING = Sums()


class NoCorrection(ValueError):
    """A corrected figure that cannot be had; the text says why, for a person."""


def rate(k: Sums) -> Estimate | None:
    """A share, of indicators ``f`` (0 or 1), with Wilson's interval at the effective n; None without observations."""
    if k.n == 0:
        return None
    value, n = min(1.0, max(0.0, k.mean_f)), k.effective_n
    low, high = wilson(value * n, n)
    return Estimate(k.n, value, k.variance_f, low, high)


def mean(scores: Sums) -> Estimate | None:
    """The mean of ``f`` with its normal interval, not clipped; None below two observations, which have no variance."""
    if scores.n < 2:
        return None
    radius = Z * math.sqrt(scores.variance_f)
    return Estimate(scores.n, scores.mean_f, scores.variance_f, scores.mean_f - radius, scores.mean_f + radius)


def kappa(table: Sequence[Sequence[float]], *, ordinal: bool = False) -> Estimate | None:
    """Cohen's κ of a square table of counts (judge's grade, people's grade), with its asymptotic interval.

    Args:
        table: k by k counts.
        ordinal: weigh a disagreement by the square of its distance in grades.

    Returns:
        None without observations, or where both always say the same one thing: κ is 0/0 there.

    Source: J. L. Fleiss, J. Cohen, B. S. Everitt (1969), "Large sample standard errors of kappa and weighted
    kappa"; same figures as statsmodels' cohens_kappa.
    """
    size = len(table)
    n = sum(map(sum, table))
    if n == 0:
        return None
    grades = range(size)
    share = [[cell / n for cell in row] for row in table]
    judge = [sum(row) for row in share]
    people = [sum(row[j] for row in share) for j in grades]
    far = max(1, size - 1)
    weight = [[1 - ((i - j) / far) ** 2 if ordinal else float(i == j) for j in grades] for i in grades]
    observed = sum(weight[i][j] * share[i][j] for i in grades for j in grades)
    expected = sum(weight[i][j] * judge[i] * people[j] for i in grades for j in grades)
    if 1 - expected < 1e-12:
        return None
    value = (observed - expected) / (1 - expected)
    of_judge = [sum(weight[i][j] * people[j] for j in grades) for i in grades]
    of_people = [sum(weight[i][j] * judge[i] for i in grades) for j in grades]
    spread = sum(
        share[i][j] * (weight[i][j] - (of_judge[i] + of_people[j]) * (1 - value)) ** 2 for i in grades for j in grades
    )
    variance = max(0.0, spread - (value - expected * (1 - value)) ** 2) / ((1 - expected) ** 2 * n)
    radius = Z * math.sqrt(variance)
    return Estimate(round(n), value, variance, max(-1.0, value - radius), min(1.0, value + radius))


def corrected(positive: Sums, sensitivity: Sums, specificity: Sums) -> Estimate:
    """The rate of good answers without the judge's errors: θ̂ = (p̂ + q0 − 1) / (q0 + q1 − 1), within 0–1.

    Var θ̂ = [Var p̂ + (1−θ)²·Var q0 + θ²·Var q1] / (q0+q1−1)². The interval is Lang and Reiczigel's: the same
    variance at rates that are drawn to the middle a little (z²/2 observations for p̂, one of each kind for q0 and
    q1), and so it also holds where the judge made no error on a few labels, which does not mean that it makes none.

    Args:
        positive: indicators of what the judge calls good, over the traffic.
        sensitivity: of the answers that people call good, indicators of the judge calling them good.
        specificity: of the answers that people call bad, indicators of the judge calling them bad.

    Raises:
        NoCorrection: labels of one class only, nothing judged, or q0 + q1 ≤ 1.

    Source: W. J. Rogan, B. Gladen (1978); Z. Lang, J. Reiczigel (2014), "Confidence limits for prevalence of
    disease adjusted for estimated sensitivity and specificity".
    """
    for sums, what in (
        (positive, "no answer that this judge scored"),
        (sensitivity, "no label of a good answer: the judge's sensitivity is unknown"),
        (specificity, "no label of a bad answer: the judge's specificity is unknown"),
    ):
        if sums.n == 0:
            raise NoCorrection(what)
    p, q1, q0 = positive.mean_f, sensitivity.mean_f, specificity.mean_f
    if q0 + q1 - 1 <= 1e-9:
        raise NoCorrection(
            f"sensitivity {q1:.3f} + specificity {q0:.3f} is not above 1: the verdict tells nothing of the truth"
        )
    raw = (p + q0 - 1) / (q0 + q1 - 1)
    value = min(1.0, max(0.0, raw))
    variance = (positive.variance_f + (1 - value) ** 2 * specificity.variance_f + value**2 * sensitivity.variance_f) / (
        q0 + q1 - 1
    ) ** 2
    low, high = _lang_reiczigel(p, positive.effective_n, q1, sensitivity.effective_n, q0, specificity.effective_n)
    return Estimate(positive.n, value, variance, min(low, value), max(high, value))


def _lang_reiczigel(p: float, n: float, q1: float, m1: float, q0: float, m0: float) -> tuple[float, float]:
    n_drawn, m1_drawn, m0_drawn = n + Z * Z, m1 + 2, m0 + 2
    p = (n * p + Z * Z / 2) / n_drawn
    q1, q0 = (m1 * q1 + 1) / m1_drawn, (m0 * q0 + 1) / m0_drawn
    youden = q0 + q1 - 1
    if youden <= 1e-9:
        return 0.0, 1.0  # so few labels that the interval holds everything
    rate = min(1.0, max(0.0, (p + q0 - 1) / youden))
    of_q1, of_q0 = q1 * (1 - q1) / m1_drawn, q0 * (1 - q0) / m0_drawn
    middle = rate + 2 * Z * Z * (rate * of_q1 - (1 - rate) * of_q0)
    radius = Z * math.sqrt(p * (1 - p) / n_drawn + (1 - rate) ** 2 * of_q0 + rate**2 * of_q1) / youden
    return min(1.0, max(0.0, middle - radius)), max(0.0, min(1.0, middle + radius))


def prediction_powered(labelled: Sums, unlabelled: Sums, power: float | None = 1.0) -> tuple[Estimate, float]:
    """The mean of people's labels over the traffic, from many scores and few labels.

    θ̂ = λ·mean f(unlabelled) + mean (y − λf) on the labelled, Var θ̂ = λ²·Var f̄ + Var (y−λf)‾. λ = 1 is
    prediction-powered inference, λ = 0 the labels alone; PPI++ takes the λ with the least variance.

    Args:
        labelled: ``y`` people's label, ``f`` the judge's score, of a random sample of the traffic (or weighted as one).
        unlabelled: ``f`` of the rest; none at all leaves the labels alone.
        power: λ between 0 and 1; None for the best one.

    Returns:
        The estimate, of the labels' n, and λ. It is not clipped to 0–1.

    Raises:
        NoCorrection: fewer than two labels, which have no variance.

    Source: A. N. Angelopoulos et al. (2023), "Prediction-powered inference", Science 382; A. N. Angelopoulos,
    J. C. Duchi, T. Zrnic (2023), "PPI++". Same figures as ppi-python.
    """
    if labelled.n < 2:
        raise NoCorrection(f"{labelled.n} labels; a mean with a variance needs at least 2")
    v_rest = unlabelled.variance_f if unlabelled.n else 0.0
    if power is None:
        spread = v_rest + labelled.variance_f
        power = min(1.0, max(0.0, labelled.covariance / spread)) if spread > 0 else 0.0
    lam = power if unlabelled.n else 0.0
    rest = lam * unlabelled.mean_f if unlabelled.n else 0.0
    value = rest + labelled.mean_y - lam * labelled.mean_f
    of_labels = labelled.variance_y - 2 * lam * labelled.covariance + lam**2 * labelled.variance_f
    variance = lam**2 * v_rest + max(0.0, of_labels)
    radius = Z * math.sqrt(variance)
    return Estimate(labelled.n, value, variance, value - radius, value + radius), lam
