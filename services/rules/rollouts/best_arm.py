"""Which of several candidates is the best, asked at every look, and who gets the next copies meanwhile. Pure.

Every pair of candidates is compared by a confidence sequence (`sequential.radius`), so that neither looking often nor
giving copies to whom the last look favoured makes a wrong choice likelier than alpha: successive elimination with
leader and challenger (Even-Dar, Mannor and Mansour 2006; Kalyanakrishnan et al. 2012, "LUCB") on anytime-valid bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ratchet.schemas.rollout_policy import BestArmPolicy
from ratchet.services.rules.rollouts.evidence import Sample
from ratchet.services.rules.rollouts.sequential import radius
from ratchet.services.rules.rollouts.sums import impossible, unit_variance

FULL = 10_000
_OPEN_SHARE = 0.6
"""Of the copies, what the leader and its closest rival get together: between them the choice is open."""
_PLANNED = 8
"""The bound is tightest at this many times ``min_n`` copies of each."""


@dataclass(frozen=True)
class Choice:
    """The best candidate (None: not known yet), the share of the copies that each gets, and why."""

    best: str | None
    shares: Mapping[str, int]
    reason: str


def even(names: list[str]) -> dict[str, int]:
    """Equal shares of 10,000; what does not divide goes to the first."""
    share, rest = divmod(FULL, len(names))
    return {name: share + (rest if position == 0 else 0) for position, name in enumerate(names)}


def choose(arms: Mapping[str, Sample | None], policy: BestArmPolicy, lower_is_better: bool = False) -> Choice:
    """Say which candidate is at most ``margin`` below every other one, if that is shown yet.

    Args:
        arms: what each candidate's copies showed: its values, or their differences to stable's on the same prompts
            (of one kind for all); None: nothing yet.
        policy: the margin, alpha and how many copies each gets before any is left out.
        lower_is_better: a higher value is worse.
    """
    known = {name: one for name, one in arms.items() if one is not None and one.n >= policy.min_n}
    for name, one in known.items():
        if problem := impossible(one, bounded=True, signed=True):
            return Choice(None, even(list(arms)), f"{name}: {problem}")
    if len(known) < len(arms):
        short = ", ".join(sorted(set(arms) - set(known)))
        return Choice(None, even(list(arms)), f"waiting for {policy.min_n} copies of {short}")
    sign = -1.0 if lower_is_better else 1.0
    mean = {name: sign * one.mean for name, one in known.items()}
    leader = max(known, key=lambda name: mean[name])
    alpha = policy.alpha / max(len(known) * (len(known) - 1), 1)
    ahead = {name: mean[leader] - mean[name] for name in known if name != leader}
    around = {name: _radius(known[leader], known[name], policy, alpha) for name in ahead}
    behind = {name for name in ahead if ahead[name] > around[name]}
    said = ", ".join(f"{name} {known[name].mean:.4f} of {known[name].n:.0f}" for name in known)
    if all(ahead[name] + policy.margin > around[name] for name in ahead):
        return Choice(leader, {leader: FULL}, f"{leader} is the best, or within {policy.margin:g} of it: {said}")
    rival = min((name for name in ahead if name not in behind), key=lambda name: ahead[name] - around[name])
    rest = [name for name in ahead if name not in behind and name != rival]
    open_share = round(FULL * _OPEN_SHARE) if rest else FULL
    shares = {leader: open_share - open_share // 2, rival: open_share // 2}
    shares |= {name: (FULL - open_share) // len(rest) for name in rest}
    shares[leader] += FULL - sum(shares.values())
    left = f"; left out: {', '.join(sorted(behind))}" if behind else ""
    return Choice(None, shares, f"{leader} leads {rival}: {said}{left}")


def _radius(one: Sample, other: Sample, policy: BestArmPolicy, alpha: float) -> float:
    each = [unit_variance(sample, bounded=True, signed=True) * sample.design_effect for sample in (one, other)]
    information = 1 / (each[0] / one.n + each[1] / other.n)
    return radius(information, policy.min_n * _PLANNED / sum(each), alpha)
