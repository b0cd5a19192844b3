"""One task's judges at work on two answers: each judge in both orders, from the cache where it was said before.

This is to pairwise judging what `grading` is to pointwise: it knows no events.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from ratchet.consumers.asking import Judges, Question
from ratchet.consumers.rules import pairwise as rules
from ratchet.consumers.rules.judging import Rubric
from ratchet.consumers.rules.pairwise import ORDERS, Order, Outcome, Said
from ratchet.consumers.rules.verdicts import Basis
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_cache import JudgeCache
from ratchet.schemas.pairwise_policy import PairwisePolicy


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one judge said in one order, or (without ``order``) its word, or the word of several; else why it abstains.

    ``passing``: what kept it from saying anything goes by (a spent budget, an endpoint that is away).
    """

    judge: str
    order: Order | None
    said: Said | None
    why: str = ""
    basis: Basis | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    cached: bool = False
    passing: bool = False


class Comparer(Judges):
    """Compares two answers by a rubric; safe to use from several coroutines of one event loop."""

    def __init__(
        self, policy: PairwisePolicy, rubric: Rubric, judges: Sequence[JudgeClient], cache: JudgeCache | None = None
    ) -> None:
        """Take the parts.

        Args:
            policy: how the judges are combined, and sampled.
            rubric: from `grading.load_rubric`, about two answers.
            judges: at least one; a cascade's in order.
            cache: of what was said before; None pays every time.

        Raises:
            SettingsError: the judges' models are too long to name together in a score.
        """
        super().__init__(policy, judges, "pairwise.judges")
        self.rubric = rubric
        self._cache = cache

    async def compare(self, id: str, asked: object, candidate: object, other: object) -> list[Opinion]:
        """Ask the judges.

        Args:
            id: of what is judged.
            asked: the messages or the prompt, as JSON values.
            candidate: the candidate's text, or its tool calls as JSON values.
            other: the same of what it is compared with.

        Returns:
            Each judge's opinion in both orders and its word; of several judges then their common word. The last one
            counts.
        """

        async def one(client: JudgeClient) -> list[Opinion]:
            return await self._both_orders(client, id, asked, candidate, other)

        if len(self.judges) == 1:
            return await one(self.judges[0])
        found: list[list[Opinion]] = []
        if self._policy.combine == "panel":
            found = list(await asyncio.gather(*map(one, self.judges)))
            said, why = rules.panel([opinions[-1].said for opinions in found], self._policy.quorum)
        else:
            for client in self.judges:
                found.append(await one(client))
                if rules.sure(found[-1][-1].said) >= self._policy.min_confidence:
                    break
            heard = [opinions[-1].said for opinions in found if opinions[-1].said is not None]
            said, why = (heard[-1], "") if heard else (None, "; ".join(opinions[-1].why for opinions in found))
        passing = said is None and any(opinions[-1].passing for opinions in found)
        flat = [opinion for opinions in found for opinion in opinions]
        return [*flat, Opinion(self.word, None, said, why, "combined", cost_usd=0.0, passing=passing)]

    async def _both_orders(
        self, client: JudgeClient, id: str, asked: object, candidate: object, other: object
    ) -> list[Opinion]:
        first, second = await asyncio.gather(
            *(self._asked(client, id, asked, candidate, other, order) for order in ORDERS)
        )
        word = Opinion(client.model, None, None, basis="combined", cost_usd=0.0)
        if first.said is None or second.said is None:
            why = "; ".join(f"{one.order}: {one.why}" for one in (first, second) if one.why)
            silent = [one for one in (first, second) if one.said is None]
            return [first, second, replace(word, why=why, passing=all(one.passing for one in silent))]
        return [first, second, replace(word, said=rules.combine(first.said, second.said))]

    async def _asked(
        self, client: JudgeClient, id: str, asked: object, candidate: object, other: object, order: Order
    ) -> Opinion:
        """One judge in one order."""
        key = self._key(client.model, order, asked, candidate, other)
        if self._cache is not None and (found := self._cache.get(key)) is not None:
            said = _recalled(found)
            return Opinion(client.model, order, said, basis=_basis(found), cost_usd=0.0, cached=True)
        question = Question(
            *rules.build_prompt(self.rubric, id, asked, candidate, other, order),
            schema=rules.REPLY_SCHEMA,
            read=partial(rules.read_reply, order=order),
            together=partial(rules.from_samples, order=order),
            noun="verdict",
        )
        answer = await self.ask(client, question)
        if answer.verdict is not None and self._cache is not None:
            kept = {"outcome": answer.verdict.outcome, "shares": answer.verdict.distribution}
            self._cache.put(key, kept | {"why": answer.verdict.rationale, "basis": answer.basis})
        return Opinion(
            client.model,
            order,
            answer.verdict,
            answer.why,
            answer.basis,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.cost_usd,
            passing=answer.passing,
        )

    def _key(self, model: str, order: Order, asked: object, candidate: object, other: object) -> str:
        how = [self._policy.samples, self._policy.temperature]
        content = json.dumps(
            ["pairwise", model, self.rubric.hash, *how, order, asked, candidate, other], sort_keys=True
        )
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _recalled(found: Mapping[str, object]) -> Said:
    shares = cast("dict[Outcome, float] | None", found["shares"])
    return Said(cast(Outcome, found["outcome"]), shares, str(found["why"]))


def _basis(found: Mapping[str, object]) -> Basis:
    return cast("Basis", found["basis"])
