"""Rewards that say that a run goes wrong though its loss looks well.

The loss of DPO asks only that the better answer gains on the worse one. It may fall while both lose likelihood, the
worse one faster: Pal et al., "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive" (2024),
section 3; Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization" (2024),
where what gains is neither answer, and may be the opposite of what was wanted. A small loss of likelihood is usual and
harmless, so the rule asks how much, by the token, and for how long.

The reward of an answer is beta times its log-probability less that under the base model (Rafailov et al. 2023, eq. 5).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

Line = Mapping[str, float]


def fall(reward: float, *, beta: float, tokens: float) -> float:
    """By how many nats a token an answer became less likely; negative where it became likelier.

    Args:
        reward: mean of the better answers.
        beta: of the recipe.
        tokens: mean length of the better answers.
    """
    return -reward / (beta * tokens)


def displaced(lines: Sequence[Line], *, beta: float, tokens: float, most: float, logs: int) -> str | None:
    """Why a run has collapsed: its better answers lost too much likelihood for too long; None where they have not.

    Args:
        lines: progress so far; those without ``chosen_reward`` are passed over (a batch may have no wanted answer).
        beta: of the recipe.
        tokens: mean length of the better answers.
        most: nats a token; 0 allows ever so many.
        logs: this many lines in a row.
    """
    falls = [fall(line["chosen_reward"], beta=beta, tokens=tokens) for line in lines if "chosen_reward" in line]
    if not most or len(falls) < logs or min(falls[-logs:]) <= most:
        return None
    worse = lines[-1].get("rejected_reward")
    beside = "" if worse is None else f" (the worse ones {fall(worse, beta=beta, tokens=tokens):.2g})"
    return (
        f"the better answers have become {falls[-1]:.2g} nats a token less likely than under the base model{beside}, "
        f"and by more than collapse_nats = {most:g} in each of the last {logs} lines"
    )


def still(lines: Sequence[Line], *, logs: int) -> str | None:
    """Why nothing is learned: rewards without any variance; None where they have some, or it is too early to say.

    Better and worse answers that are the same tokens have a margin of exactly 0 for ever, and no gradient. The first
    rewards of an adapter are 0, too, for it begins as nothing, and so are those after a step with a learning rate of 0:
    these lines do not count.

    Args:
        lines: progress so far, with ``lr`` beside the rewards.
        logs: this many lines in a row; 0 for never.
    """
    rated = [line for line in lines if "chosen_reward" in line or "rejected_reward" in line]
    counted = [late for early, late in itertools.pairwise(rated) if early.get("lr", 0.0) > 0]
    if not logs or len(counted) < logs or not all(_nothing(line) for line in counted[-logs:]):
        return None
    return (
        f"better and worse answers are rewarded exactly alike in each of the last {logs} lines, so nothing is learned: "
        "are they alike within max_length, or is the learning rate too small for the dtype?"
    )


def _nothing(line: Line) -> bool:
    """Whether a line's rewards differ by nothing; of kto's batches with one side alone, whether they are nothing."""
    if "reward_margin" in line:
        return line["reward_margin"] == 0
    return not line.get("chosen_reward") and not line.get("rejected_reward")
