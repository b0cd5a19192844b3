"""Win rate of a candidate against stable: the task's pairwise judge on both models' answers, in both orders."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.consumers.comparing import Comparer
from ratchet.consumers.rules import pairwise
from ratchet.consumers.rules.pairwise import VALUES
from ratchet.trainers.evaluation.asking import Reply, with_system
from ratchet.trainers.rules.measures import Observed, Value


@dataclass(frozen=True, slots=True)
class Bench:
    """The judge of a task's comparisons; ``advisory`` says why its word decides nothing yet, "" where it may."""

    comparer: Comparer
    advisory: str = ""

    async def close(self) -> None:
        """Close the judges' connections."""
        for judge in self.comparer.judges:
            await judge.close()


async def win_rate(
    comparer: Comparer,
    rows: Sequence[dict[str, Any]],
    candidate: Sequence[Reply],
    stable: Sequence[Reply],
    system_prompt: str | None = None,
) -> Observed:
    """Compare the answers prompt by prompt: 1 where the candidate's is better, 0 where it is worse, ½ a tie.

    What needs no judge (the same text, no answer at all) is not shown to it. Where it abstains the prompt has no
    verdict.

    Args:
        comparer: the judge.
        rows: the prompts.
        candidate: its answers.
        stable: stable's.
        system_prompt: as the models were asked with.
    """
    gate = asyncio.Semaphore(max(1, max(judge.concurrency for judge in comparer.judges) // 2))

    async def one(number: int) -> float | None:
        ours, theirs = candidate[number].text, stable[number].text
        said = pairwise.without_judge(ours, theirs)
        if said is None:
            async with gate:
                asked = with_system(rows[number]["messages"], system_prompt)
                said = (await comparer.compare(f"evaluation-{number}", asked, ours, theirs))[-1].said
        return None if said is None else VALUES[said.outcome]

    found = await asyncio.gather(*(one(number) for number in range(len(rows))))
    values: dict[str, Value] = {f"{n:06}": (one,) for n, one in enumerate(found) if one is not None}
    return Observed(values, frozenset(f"{n:06}" for n, one in enumerate(found) if one is None))
