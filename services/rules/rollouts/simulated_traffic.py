"""Traffic of many rollouts at once, made up: users, requests, labels, latencies, as arrays. Pure and seeded.

Rows are rollouts. With ``users`` a column is a user: activity is heavy-tailed (lognormal), a user keeps one arm as a
sticky split does, and has rates of their own (beta-distributed around the true rate, so that the requests of one user
are correlated by ``icc``; a lognormal factor on latencies). Without, every request is a user's of its own and a column
is an arm. What is seen of them is summed up just as the ClickHouse queries sum it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from ratchet.services.rules.rollouts.evidence import Sample
from ratchet.services.rules.rollouts.traffic import LATENCY, P95_MS, WIN_RATE, Signal, Traffic

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_TAIL = 0.05
_Z95 = float(ndtri(1 - _TAIL))


@dataclass
class _Late:
    """Labels that are on their way: due at a look, of requests made in a stage."""

    due: int
    stage: int
    rows: Ints
    n: Floats
    total: Floats
    squares: Floats
    stable: Floats | None


@dataclass
class _Seen:
    """Cumulative sums of one metric: by stage, rollout and column.

    Of mirrored requests ``total`` and ``squares`` are of the differences, and ``stable`` sums up production's answers;
    of their latencies ``total`` and ``stable`` count the slow ones of either.
    """

    late: deque[_Late]
    n: NDArray[np.float32]
    total: NDArray[np.float32]
    squares: NDArray[np.float32]
    stable: NDArray[np.float32]


class Population:
    """The users of ``rollouts`` rollouts, and all that was seen of them so far.

    Args:
        traffic: what it is like.
        difference: by metric the candidate's true mean less the stable arm's; of the latency the share by which the
            candidate's is longer.
        bound: the latency gate's bound over the stable P95, as a ratio.
        stages: how many stages there are.
        rollouts: rows.
        random: the only source of chance.
        users_known: False leaves out of every sample whose observation it was.
    """

    def __init__(
        self,
        traffic: Traffic,
        difference: Mapping[str, float],
        bound: float,
        stages: int,
        rollouts: int,
        random: np.random.Generator,
        users_known: bool = True,
    ) -> None:
        self.traffic, self.random, self.users_known = traffic, random, users_known
        self._shift = float(np.log((1 + difference.get(LATENCY, 0.0)) / bound)) / traffic.latency_sd
        columns = traffic.users or 2
        shape = (rollouts, columns)
        self.by_user = traffic.users is not None
        self._within = float(np.sqrt(1 - traffic.icc)) if self.by_user else 1.0
        activity = random.lognormal(0.0, traffic.activity_sd, shape) if self.by_user else np.ones(shape)
        self.activity = traffic.requests_per_hour * activity / activity.sum(1, keepdims=True)
        self.bucket = random.random(shape) if self.by_user else np.tile([2.0, -1.0], (rollouts, 1))
        self.means = {name: self._means(one, difference.get(name, 0.0), shape) for name, one in traffic.signals.items()}
        self.means[LATENCY] = self._exceedances(shape)
        nothing = (stages, *shape)
        self.calls = np.zeros(nothing, dtype=np.float32)
        self.seen = {
            name: _Seen(deque(), *(np.zeros(nothing, dtype=np.float32) for _ in range(4))) for name in traffic.signals
        }

    def ask(self, look: int, look_h: float, stage: int, weight: float, mirror: float, rows: Ints) -> None:
        """The requests of one look's time in these rollouts, all of them in one stage; labels may come later.

        Args:
            look: its number.
            look_h: hours since the look before.
            stage: index among the policy's stages.
            weight: share of users that get the candidate.
            mirror: share of requests that is mirrored, of a stage without users of the candidate.
            rows: which rollouts.
        """
        arm = self.arm(rows, weight)
        rate = self.activity[rows] * look_h * (1.0 if weight else mirror)
        if not self.by_user and weight:
            rate = 2 * rate * np.where(arm, weight, 1 - weight)
        calls = self.random.poisson(rate).astype(np.float64)
        self.calls[stage, rows] += calls
        for name, signal in self.traffic.signals.items():
            if weight == 1 or not (weight or signal.mirrored):
                continue
            n = calls if signal.share == 1 else self.random.binomial(calls.astype(np.int64), signal.share).astype(float)
            old, new = (each[rows] if self.by_user else each for each in self.means[name])
            stable = None
            if weight:
                total, squares = self._answers(signal, n, np.where(arm, new, old))
            elif name == LATENCY:
                stable, total = (self.random.binomial(n.astype(np.int64), mean).astype(float) for mean in (old, new))
                squares = total
            else:
                total, squares, stable = self._pairs(name, signal, n, old, new)
            due = look + round(signal.delay_h / look_h)
            self.seen[name].late.append(_Late(due, stage, rows, n, total, squares, stable))

    def arrive(self, look: int) -> dict[str, set[int]]:
        """Count what has arrived by this look; by metric the stages that more was seen of."""
        changed: dict[str, set[int]] = {}
        for name, seen in self.seen.items():
            while seen.late and seen.late[0].due <= look:
                late = seen.late.popleft()
                seen.n[late.stage, late.rows] += late.n
                seen.total[late.stage, late.rows] += late.total
                seen.squares[late.stage, late.rows] += late.squares
                if late.stable is not None:
                    seen.stable[late.stage, late.rows] += late.stable
                changed.setdefault(name, set()).add(late.stage)
        return changed

    def arm(self, rows: Ints, weight: float) -> NDArray[np.bool_]:
        """Who gets the candidate: cohorts nest as the weight grows."""
        return np.asarray(self.bucket[rows] < weight)

    def keys(self, stage: int, weight: float, rows: Ints) -> tuple[Ints, Ints]:
        """Distinct sticky keys of the stable and of the candidate's arm since the stage began."""
        calls, arm = self.calls[stage, rows], self.arm(rows, weight)
        count = (calls > 0) if self.by_user else calls
        return (count * ~arm).sum(1).astype(np.int64), (count * arm).sum(1).astype(np.int64)

    def sums(self, name: str, stage: int, rows: Ints, arm: NDArray[np.bool_] | None) -> list[Sample | None]:
        """One sample a rollout, of the columns in ``arm`` (None: of all), with the variance of its mean by users."""
        seen = self.seen[name]
        keep = np.ones(1) if arm is None else arm
        n, total = seen.n[stage, rows] * keep, seen.total[stage, rows] * keep
        squares = seen.squares[stage, rows] * keep
        all_n, all_total, all_squares = n.sum(1), total.sum(1), squares.sum(1)
        if not (self.by_user and self.users_known):
            return [
                Sample(a, b, c) if a else None
                for a, b, c in zip(all_n.tolist(), all_total.tolist(), all_squares.tolist(), strict=True)
            ]
        users = (n > 0).sum(1)
        mean = (all_total / np.maximum(all_n, 1))[:, None]
        spread = ((total - mean * n) ** 2).sum(1) / np.maximum(all_n, 1) ** 2
        variance = spread * users / np.maximum(users - 1, 1)
        columns = (all_n, all_total, all_squares, users, variance)
        return [
            Sample(a, b, c, users=k, mean_variance=v if k > 1 else None) if a else None
            for a, b, c, k, v in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def _means(self, signal: Signal, change: float, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """Each column's true mean in the stable arm and in the candidate's."""
        base = signal.base
        if signal.spread is not None:
            own = self._own(shape) * signal.spread
            return base + own, base + change + own
        if not self.by_user or not self.traffic.icc or not 0 < base < 1:
            old = np.full(shape if self.by_user else (1, 1), base)
        else:
            size = 1 / self.traffic.icc - 1
            old = self.random.beta(base * size, (1 - base) * size, shape)
        if change > 0 and base < 1:
            return old, 1 - (1 - old) * (1 - base - change) / (1 - base)
        return old, old * (base + change) / base if base else old

    def _own(self, shape: tuple[int, int]) -> Floats:
        if not self.by_user:
            return np.zeros((1, 1))
        return self.random.normal(0.0, np.sqrt(self.traffic.icc), shape)

    def _answers(self, signal: Signal, n: Floats, mean: Floats) -> tuple[Floats, Floats]:
        if signal.spread is None:
            total = self.random.binomial(n.astype(np.int64), mean).astype(np.float64)
            return total, total
        within = signal.spread * self._within
        total = n * mean + self.random.normal(0.0, 1.0, n.shape) * within * np.sqrt(n)
        return total, n * (mean**2 + within**2)

    def _pairs(self, name: str, signal: Signal, n: Floats, old: Floats, new: Floats) -> tuple[Floats, Floats, Floats]:
        """Both arms answer the same prompts: sums of differences, of their squares, and of the stable arm's own."""
        shared = self.traffic.agreement
        if signal.spread is not None:
            spread = signal.spread * np.sqrt(2 * (1 - shared))
            total = n * (new - old) + self.random.normal(0.0, 1.0, n.shape) * spread * np.sqrt(n)
            squares: Floats = n * ((new - old) ** 2 + spread**2)
            return total, squares, n * old
        if name == WIN_RATE:  # `base` of the comparisons are no ties
            more = np.clip(new - old, -old / 2, old / 2)
            won, lost, step = old / 2 + more, old / 2 - more, 0.5
        else:
            won = shared * np.maximum(new - old, 0) + (1 - shared) * new * (1 - old)
            lost, step = won + old - new, 1.0
        count = n.astype(np.int64)
        wins = self.random.binomial(count, won)
        losses = self.random.binomial(count - wins, np.minimum(lost / (1 - won), 1.0))
        neither = np.clip(1 - won - lost, 1e-12, 1)
        both = self.random.binomial(count - wins - losses, np.clip((old - lost) / neither, 0.0, 1.0))
        apart = np.asarray(wins - losses, dtype=np.float64), np.asarray(wins + losses, dtype=np.float64)
        return step * apart[0], step**2 * apart[1], np.asarray(losses + both, dtype=np.float64)

    def _exceedances(self, shape: tuple[int, int]) -> tuple[Floats, Floats]:
        """Each column's chance of a call over the stable arm's true P95, and over the bound in the candidate's arm."""
        own = self._own(shape)
        old = ndtr((own - _Z95) / self._within)
        return old, ndtr((own - _Z95 + self._shift) / self._within)

    def over(self, stage: int, rows: Ints, weight: float) -> list[tuple[Sample | None, Sample | None, float]]:
        """For each rollout the stable arm's sample over its true P95, the candidate's over the bound, and P95 as seen.

        The empirical distribution is the true one plus an error that hardly changes nearby (Bahadur's representation
        of a sample quantile): from its error at the true P95 follows the sample's P95, and from the error at the true
        bound how many of the candidate's calls exceed the bound over *that*.
        """
        arm = self.arm(rows, weight) if weight else None
        mine = self.sums(LATENCY, stage, rows, arm)
        others = self.sums(LATENCY, stage, rows, ~arm) if arm is not None else self._mirrored(stage, rows)
        found: list[tuple[Sample | None, Sample | None, float]] = []
        for stable, candidate in zip(others, mine, strict=True):
            if stable is None:
                found.append((None, candidate, P95_MS))
                continue
            z = float(ndtri(1 - min(max(2 * _TAIL - stable.mean, 0.001), 0.5)))
            if candidate is not None:
                moved = float(ndtr(self._shift - z) - ndtr(self._shift - _Z95)) * candidate.n
                total = min(max(candidate.total + moved, 0.0), candidate.n)
                candidate = replace(candidate, total=total, squares=total)
            found.append((stable, candidate, P95_MS * float(np.exp(self.traffic.latency_sd * (z - _Z95)))))
        return found

    def arms_of_pairs(self, name: str, stage: int, rows: Ints) -> list[tuple[Sample, Sample]]:
        """Of mirrored prompts the arms' own figures, for people to read and for relative margins."""
        seen, spread = self.seen[name], self.traffic.signals[name].spread
        n, stable, total = (one[stage, rows].sum(1) for one in (seen.n, seen.stable, seen.total))
        pairs = zip(n.tolist(), stable.tolist(), (stable + total).tolist(), strict=True)
        return [(_sample(n, old, spread), _sample(n, new, spread)) for n, old, new in pairs]

    def _mirrored(self, stage: int, rows: Ints) -> list[Sample | None]:
        seen = self.seen[LATENCY]
        n, total = seen.n[stage, rows].sum(1).tolist(), seen.stable[stage, rows].sum(1).tolist()
        return [Sample(a, b, b) if a else None for a, b in zip(n, total, strict=True)]


def _sample(n: float, total: float, spread: float | None) -> Sample:
    squares = total if spread is None else total**2 / max(n, 1.0) + n * spread**2
    return Sample(n, total, squares)
