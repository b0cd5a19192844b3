"""What the rule over shifts does in the long run: windows of a metric in which nothing is wrong (or something moves).

A window is compared as the monitor compares it: with the whole baseline of two weeks and, once there are two weeks,
with the same hours of the week; what counts is the measurement that moved less (``drift.calmer``). The baseline varies
too, and a week later the same hours of it come again. Texts come from ten topics with vocabularies of their own, so the
terms of a text stand and fall together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ratchet.consumers.rules.drift_arrays import (
    DriftLimits,
    among,
    length_distances,
    mean_distances,
    persistent,
    share_distances,
)
from ratchet.consumers.rules.measuring import MIN_MEANS, MIN_SHARES
from ratchet.consumers.rules.quality_arrays import Bools, Floats
from ratchet.consumers.rules.quality_baseline import WEEK
from ratchet.consumers.rules.simulation import WARM, effects
from ratchet.schemas.drift_policy import DriftPolicy

Kind = Literal["lengths", "rates", "means", "terms", "topics"]
KINDS: dict[str, Kind] = {
    "answer_length": "lengths",
    "prompt_length": "lengths",
    "refusals": "rates",
    "uncertainty": "rates",
    "errors": "rates",
    "satisfaction": "rates",
    "completion": "rates",
    "latency": "means",
    "cost": "means",
    "judge_score": "means",
    "answer_terms": "terms",
    "prompt_terms": "terms",
    "answer_topics": "topics",
    "prompt_topics": "topics",
}
"""How each metric of a report is measured; ``judge_score:<version>`` is a judge_score."""
METRICS = len(KINDS)
"""In a report: those whose p-values one window's is held against."""
SIGMA = 0.8
"""Of the logarithm of a length."""
COUNTED = 640
"""Texts of which a report counts the topics, a side."""
BASELINE_WEEKS = 2
Random = np.random.Generator
Change = Floats | float
_BINS = 20
_TOPICS = 10
_TERMS = 100


@dataclass(frozen=True, slots=True)
class Traffic:
    """How a metric varies: ``n`` observations an hour, hours' effects beyond sampling, and what one observation does.

    Args:
        kind: how it is measured.
        n: observations (texts, calls) an hour.
        between: standard deviation of hours' effects: relative, of a mean, a typical length, a rate, a topic's share.
        phi: correlation of neighbouring hours' effects, 0 up to 1.
        level: of a rate.
        spread: standard deviation of one observation over the mean, for means.
    """

    kind: Kind
    n: float
    between: float = 0.0
    phi: float = 0.0
    level: float = 0.0
    spread: float = 1.0


def limits(metric: str, policy: DriftPolicy | None = None) -> DriftLimits:
    """What the rule over a metric's shifts is set to by a task's policy, or by the default one."""
    policy = policy or DriftPolicy()
    metric = metric.partition(":")[0]
    kind = KINDS[metric]
    by_kind = {"lengths": policy.psi, "rates": policy.difference, "means": policy.relative}
    effect = policy.thresholds.get(metric, by_kind.get(kind, policy.js))
    least = MIN_MEANS if kind in ("rates", "means") else MIN_SHARES
    return DriftLimits(effect, policy.alpha, policy.persistence, METRICS, least)


def windows(
    random: np.random.Generator,
    traffic: Traffic,
    series: int,
    count: int,
    *,
    width: int = 1,
    same_hours: bool = True,
    change: float = 0.0,
) -> tuple[Floats, Floats]:
    """Measure simulated windows beside simulated baselines.

    Args:
        random: seeded by the caller.
        traffic: how the metric varies.
        series: each with a baseline of its own.
        count: windows of each.
        width: hours of a window.
        same_hours: whether there are two weeks, so that the same hours of the week are asked as well.
        change: relative (of a rate in points, of topics the share that is replaced), from window ``WARM`` on.

    Returns:
        Effect and p-value of each window, (series, count).
    """
    draw = _DRAWS[traffic.kind]
    week = WEEK // width
    base = draw(random, traffic, _effects(random, traffic, series, BASELINE_WEEKS * week, width), width, 0.0)
    moved = np.where(np.arange(count) >= WARM, change, 0.0)
    now = draw(random, traffic, _effects(random, traffic, series, count, width), width, moved)
    compare = _COMPARE[traffic.kind]
    whole = _whole(base, traffic.kind)
    effect, p = compare(traffic, whole, now, BASELINE_WEEKS * week * width, width)
    if not same_hours:
        return effect, p
    alike, p_alike = compare(traffic, base[:, np.arange(count) % week], now, width, width)
    calmer = np.abs(alike) < np.abs(effect)
    return np.where(calmer, alike, effect), np.where(calmer, p_alike, p)


def raised(
    random: np.random.Generator, traffic: Traffic, rule: DriftLimits, effect: Floats, p: Floats, width: int = 1
) -> Bools:
    """Where the rule says that a metric has drifted: effect AND significance AND persistence; see `windows`."""
    judged = np.full(p.shape, traffic.n * width >= rule.min_n)
    over = among(random, p, judged & (np.abs(effect) >= rule.effect), rule)
    return persistent(over, judged, rule.hours)


def _effects(random: np.random.Generator, traffic: Traffic, series: int, count: int, width: int) -> Floats:
    """Hours' standard effects, averaged over each window; for texts one for each topic, on the last axis."""
    if traffic.kind not in ("terms", "topics"):
        hourly = effects(random, series, count * width, traffic.phi)
        averaged: Floats = hourly.reshape(series, count, width).mean(-1)
        return averaged
    hourly = effects(random, series * _TOPICS, count * width, traffic.phi)
    by_topic: Floats = hourly.reshape(series, _TOPICS, count, width).mean(-1).transpose(0, 2, 1)
    return by_topic


def _lengths(
    random: np.random.Generator, traffic: Traffic, hours: Floats, width: int, change: Floats | float
) -> Floats:
    from scipy.special import ndtr, ndtri

    edges = ndtri(np.arange(1, _BINS) / _BINS)
    place = traffic.between * hours + np.log1p(change)
    below = ndtr(edges - place[..., None] / SIGMA)
    whole = np.concatenate([below, np.ones((*place.shape, 1))], -1)
    counted: Floats = random.multinomial(int(traffic.n * width), np.diff(whole, axis=-1, prepend=0.0)).astype(
        np.float64
    )
    return counted


def _rates(random: Random, traffic: Traffic, hours: Floats, width: int, change: Change) -> Floats:
    scale = np.sqrt(np.log1p(traffic.between**2))
    each = traffic.level * np.exp(scale * hours - scale**2 / 2) + change
    size = int(traffic.n * width)
    hits: Floats = random.binomial(size, np.clip(each, 0, 1)) / size
    return hits


def _means(random: Random, traffic: Traffic, hours: Floats, width: int, change: Change) -> Floats:
    """Means of skewed observations (gamma): latencies and costs have a long tail, and so do their means."""
    shape = traffic.n * width / traffic.spread**2
    sampled: Floats = random.gamma(shape, 1 / shape, hours.shape) * (1 + traffic.between * hours + change)
    return sampled


def _topic_counts(random: Random, traffic: Traffic, hours: Floats, size: int, change: Change) -> Floats:
    """Texts of each topic; ``change`` takes that share of all texts to the rarest one."""
    shares = 1 / np.arange(1, _TOPICS + 1)
    scale = np.sqrt(np.log1p(traffic.between**2))
    drawn = shares * np.exp(scale * hours - scale**2 / 2)
    drawn /= drawn.sum(-1, keepdims=True)
    taken = np.broadcast_to(np.asarray(change, dtype=np.float64), hours.shape[:2])[..., None]
    drawn = drawn * (1 - taken)
    drawn[..., -1:] += taken
    counted: Floats = random.multinomial(size, drawn).astype(np.float64)
    return counted


def _topics(random: Random, traffic: Traffic, hours: Floats, width: int, change: Change) -> Floats:
    return _topic_counts(random, traffic, hours, min(int(traffic.n * width), COUNTED), change)


def _terms(random: Random, traffic: Traffic, hours: Floats, width: int, change: Change) -> Floats:
    """In how many texts each term stands: often in its own topic's, sometimes in others' (normal counts)."""
    topics = _topic_counts(random, traffic, hours, int(traffic.n * width), change)
    term = np.arange(_TERMS)
    common = 0.5 / (1 + term / _TOPICS) ** 0.8
    stands = np.clip(common * np.where(term % _TOPICS == np.arange(_TOPICS)[:, None], 1.8, 0.4), 0, 1)
    mean, variance = topics @ stands, topics @ (stands * (1 - stands))
    counted: Floats = np.maximum(0.0, np.rint(mean + np.sqrt(variance) * random.standard_normal(mean.shape)))
    return counted


def _whole(base: Floats, kind: Kind) -> Floats:
    """The baseline's windows as one."""
    whole: Floats = base.mean(1, keepdims=True) if kind in ("rates", "means") else base.sum(1, keepdims=True)
    return whole


Compare = Callable[[Traffic, Floats, Floats, int, int], tuple[Floats, Floats]]


def _compare_lengths(_: Traffic, base: Floats, now: Floats, base_hours: int, width: int) -> tuple[Floats, Floats]:
    return length_distances(base, now)


def _compare_rates(traffic: Traffic, base: Floats, now: Floats, base_hours: int, width: int) -> tuple[Floats, Floats]:
    n, n_base = np.full(now.shape, traffic.n * width), np.full(base.shape, traffic.n * base_hours)
    both = (base * n_base + now * n) / (n_base + n)
    return mean_distances(now, n, both * (1 - both), base, n_base, relative=False)


def _compare_means(traffic: Traffic, base: Floats, now: Floats, base_hours: int, width: int) -> tuple[Floats, Floats]:
    n, n_base = np.full(now.shape, traffic.n * width), np.full(base.shape, traffic.n * base_hours)
    return mean_distances(now, n, np.full(now.shape, traffic.spread**2), base, n_base, relative=True)


def _compare_topics(traffic: Traffic, base: Floats, now: Floats, base_hours: int, width: int) -> tuple[Floats, Floats]:
    # of the whole baseline as of the window a report counts no more than so many
    counted = base * np.minimum(1.0, COUNTED / base.sum(-1, keepdims=True))
    return share_distances(counted, now, counted.sum(-1), now.sum(-1))


def _compare_terms(traffic: Traffic, base: Floats, now: Floats, base_hours: int, width: int) -> tuple[Floats, Floats]:
    texts, texts_base = np.full(now.shape[:2], traffic.n * width), np.full(base.shape[:2], traffic.n * base_hours)
    return share_distances(base, now, texts_base, texts)


_DRAWS: dict[Kind, Callable[[Random, Traffic, Floats, int, Change], Floats]] = {
    "lengths": _lengths,
    "rates": _rates,
    "means": _means,
    "terms": _terms,
    "topics": _topics,
}
_COMPARE: dict[Kind, Compare] = {
    "lengths": _compare_lengths,
    "rates": _compare_rates,
    "means": _compare_means,
    "terms": _compare_terms,
    "topics": _compare_topics,
}
