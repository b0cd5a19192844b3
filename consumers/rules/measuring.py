"""From counts and sums of two windows to a `Measurement`: which distance, which test, and when nothing can be said.

| kind | effect | test | says nothing below |
|---|---|---|---|
| lengths | PSI over tenths of the baseline | Kolmogorov–Smirnov | 500 a side |
| means (latency, cost, judge) | relative change of the mean | Welch | 30 a side |
| rates | difference in points | z, Fisher's where a cell expects fewer than 5 | 30 a side |
| terms, topics | Jensen–Shannon distance | χ² | 500 a side |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet.consumers.rules.bins import Counts, Floats
from ratchet.consumers.rules.distances import (
    chi_square,
    deviation,
    js,
    js_terms,
    ks,
    ks_p,
    pooled,
    psi,
    psi_terms,
    two_proportions,
    wasserstein,
    welch,
)
from ratchet.consumers.rules.measurement import Measurement, Moved, Side

MIN_SHARES = 500
"""Observations a side below which PSI and JS say nothing: without drift P(PSI > 0.1) is 34% at 200, 0.2% at 500."""
MIN_MEANS = 30
"""Observations a side below which a mean or a rate says nothing."""
GROUPS = 10
_TOP = 5


@dataclass(frozen=True, slots=True)
class Sums:
    """One window's observations of a quantity: how many (effective), their mean and the variance of one."""

    n: float
    mean: float
    variance: float

    @classmethod
    def of(cls, n: float, total: float, squares: float) -> Sums:
        """From plain sums; nothing observed gives n = 0."""
        if not n:
            return cls(0.0, 0.0, 0.0)
        mean = total / n
        return cls(float(n), mean, max(0.0, squares / n - mean * mean))


def _short(n_before: float, n_now: float, least: int, what: str) -> str | None:
    """Why two windows are too few for a statistic, or None."""
    if n_before == 0 or n_now == 0:
        return f"no observations in the {'baseline' if n_before == 0 else 'window'}"
    if min(n_before, n_now) < least:
        return f"{what} says nothing below {least} observations a side: {n_before:.0f} and {n_now:.0f}"
    return None


def lengths(metric: str, side: Side, unit: str, counts: Counts, before: Sums, now: Sums) -> Measurement:
    """Measure a distribution: PSI and JS over tenths of the baseline, KS and Wasserstein over all bins.

    Below `MIN_SHARES` a side it abstains, with KS and Wasserstein alone; with an empty side nothing is compared.
    """
    found = Measurement(
        metric,
        side,
        unit,
        int(before.n),
        int(now.n),
        baseline=before.mean if before.n else None,
        value=now.mean if now.n else None,
        effect_name="psi",
        test="ks",
        abstains=_short(before.n, now.n, MIN_SHARES, "PSI"),
    )
    if not (counts.before.sum() and counts.now.sum()):
        return found
    distances, top = _distances(counts, unit)
    if found.abstains:
        return replace(found, distances={name: distances[name] for name in ("ks", "wasserstein")})
    p = ks_p(distances["ks"], before.n, now.n)
    return replace(found, distances=distances, effect=distances["psi"], p_value=p, top=top)


def _distances(counts: Counts, unit: str) -> tuple[dict[str, float], tuple[Moved, ...]]:
    groups = counts.grouped(GROUPS)
    distances = {
        "ks": ks(counts.before, counts.now),
        "psi": psi(groups.before, groups.now),
        "wasserstein": wasserstein(counts.values, counts.before, counts.now),
        "js": js(groups.before, groups.now),
    }
    labels = [
        f"{first:.6g} {unit}" if first == last else f"{first:.6g}–{last:.6g} {unit}"
        for first, last in zip(groups.first, groups.last, strict=True)
    ]
    parts = psi_terms(groups.before, groups.now)
    return distances, _top(labels, groups.before / groups.before.sum(), groups.now / groups.now.sum(), parts)


def as_evidently(counts: Counts) -> dict[str, float]:
    """The four figures as Evidently 0.7 defines them, from exact counts: to compare with, not to decide by.

    ``ks_p`` is the p of KS; PSI and JS are over Sturges' equal bins, ``wasserstein_sd`` is in standard deviations of
    the baseline.
    """
    equal = counts.equal_width()
    n_before, n_now = float(counts.before.sum()), float(counts.now.sum())
    moved = wasserstein(counts.values, counts.before, counts.now)
    return {
        "ks_p": ks_p(ks(counts.before, counts.now), n_before, n_now),
        "psi_equal_width": psi(equal.before, equal.now),
        "js_equal_width": js(equal.before, equal.now),
        "wasserstein_sd": moved / max(deviation(counts.values, counts.before), 0.001),
    }


def with_values(found: Measurement, counts: Counts) -> Measurement:
    """The measurement with its distances over exact values instead of bins, and Evidently's beside them."""
    if found.abstains is not None or not (counts.before.sum() and counts.now.sum()):
        return found
    distances, top = _distances(counts, found.unit)
    p = ks_p(distances["ks"], float(counts.before.sum()), float(counts.now.sum()))
    exact = distances | as_evidently(counts)
    return replace(found, distances=exact, effect=distances["psi"], p_value=p, top=top)


def means(metric: str, unit: str, before: Sums, now: Sums, counts: Counts | None = None) -> Measurement:
    """Measure how far a mean moved, relative to the baseline's; distances and top bins where there are counts.

    A sum that is not a number (one observation was none) says nothing. A baseline of 0 has no relative change: two
    zeros are none, anything else abstains.
    """
    sums = (before.mean, before.variance, now.mean, now.variance)
    if not all(map(math.isfinite, sums)):
        why: str | None = "an observation is not a number"
        before, now = (Sums(one.n, 0.0, 0.0) for one in (before, now))
        baseline = value = None
    else:
        why = _short(before.n, now.n, MIN_MEANS, "a mean")
        baseline, value = (one.mean if one.n else None for one in (before, now))
        if why is None and before.mean == 0 and now.mean != 0:
            why = "the baseline's mean is 0: no change is relative to it"
    found = Measurement(
        metric,
        "output",
        unit,
        int(before.n),
        int(now.n),
        baseline=baseline,
        value=value,
        effect_name="relative",
        test="welch",
        abstains=why,
    )
    if why is not None:
        return found
    effect = now.mean / before.mean - 1 if before.mean else 0.0
    p = welch(before.mean, before.variance, before.n, now.mean, now.variance, now.n)
    found = replace(found, effect=effect, p_value=p)
    if counts is not None and min(counts.before.sum(), counts.now.sum()) >= MIN_SHARES:
        distances, top = _distances(counts, unit)
        found = replace(found, distances=distances, top=top)
    return found


def rates(metric: str, hits: int, n: int, hits_now: int, n_now: int) -> Measurement:
    """Measure how far a rate moved, in points; all or none on both sides is no difference, with p 1."""
    found = Measurement(
        metric,
        "output",
        "rate",
        n,
        n_now,
        baseline=hits / n if n else None,
        value=hits_now / n_now if n_now else None,
        effect_name="difference",
        test="z",
        abstains=_short(n, n_now, MIN_MEANS, "a rate"),
    )
    if found.abstains:
        return found
    _, p, test = two_proportions(hits, n, hits_now, n_now)
    return replace(found, effect=hits_now / n_now - hits / n, p_value=p, test=test)


def shares(
    metric: str,
    side: Side,
    labels: Sequence[str],
    before: Sequence[int],
    now: Sequence[int],
    texts: int,
    texts_now: int,
) -> Measurement:
    """Measure how terms or topics moved: JS over their counts, and χ² in which a text is one observation.

    Terms of one text stand or fall together, so their counts are scaled down to the number of texts before the test:
    it says less than the raw counts would, never more. Shares in ``top`` are of the texts.
    """
    found = Measurement(
        metric,
        side,
        "share of texts",
        texts,
        texts_now,
        effect_name="js",
        test="chi2",
        abstains=_short(texts, texts_now, MIN_SHARES, "JS"),
    )
    one, other = np.asarray(before, dtype=np.float64), np.asarray(now, dtype=np.float64)
    if found.abstains is None and not (one.sum() and other.sum()):
        found = replace(found, abstains="one side's texts have no words")
    if found.abstains:
        return found
    _, p = chi_square(*pooled(_as_texts(one, texts), _as_texts(other, texts_now)))
    distance = js(one, other)
    top = _top(labels, one / texts, other / texts_now, js_terms(one, other))
    return replace(found, distances={"js": distance}, effect=distance, p_value=p, top=top)


def _as_texts(counts: Floats, texts: int) -> Floats:
    scaled: Floats = counts * min(1.0, texts / counts.sum())
    return scaled


def versions(
    metric: str, unit: str, before: Mapping[str, Sums], now: Mapping[str, Sums], as_rate: bool = False
) -> list[Measurement]:
    """Measure each version of a judge (or check) against itself; the one with most of the window has the plain name.

    A version that the baseline lacks abstains: another ruler's figures do not compare.
    """
    if not now:
        return [means(metric, unit, next(iter(before.values()), Sums(0, 0, 0)), Sums(0, 0, 0))]
    main = min(now, key=lambda version: (-now[version].n, version))
    found = []
    for version in sorted(now, key=lambda version: (version != main, version)):
        name = metric if version == main else f"{metric}:{version}"
        one, other = before.get(version, Sums(0, 0, 0)), now[version]
        if as_rate:
            counted = (round(one.mean * one.n), round(one.n), round(other.mean * other.n), round(other.n))
            measured = rates(name, *counted)
        else:
            measured = means(name, unit, one, other)
        if not one.n and before:
            measured = replace(measured, abstains=f"{version} scored none of the baseline, other versions did")
        found.append(measured)
    return found


def _top(labels: Sequence[str], before: Floats, now: Floats, parts: Floats) -> tuple[Moved, ...]:
    order = np.argsort(-parts, kind="stable")[:_TOP]
    return tuple(Moved(labels[at], float(before[at]), float(now[at])) for at in order if parts[at] > 0)
