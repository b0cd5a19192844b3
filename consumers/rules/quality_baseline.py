"""What judged quality is compared with: mean, noise of one answer, noise between hours, and how hours hang together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ratchet.consumers.rules.measurement import HourValue


@dataclass(frozen=True, slots=True)
class Baseline:
    """A metric's normal behaviour, hour by hour.

    Attributes:
        mean: b, in the metric's unit.
        variance: σ² of one observation, pooled within hours.
        between: τ², the variance between hours beyond what σ²/n explains (DerSimonian–Laird, 1986).
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
        if not self.of_week:
            return self.mean
        return self.mean + self.of_week[hour.weekday() * 24 + hour.hour]


def estimate(hours: Iterable[HourValue], *, min_n: float, min_hours: int = 24) -> Baseline:
    """Estimate a baseline; hours below ``min_n`` and hours that are not numbers are left out."""
    raise NotImplementedError
