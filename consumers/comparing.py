"""One task's judges at work on two answers: each judge in both orders, from the cache where it was said before.

This is to pairwise judging what `grading` is to pointwise: it knows no events.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from ratchet.consumers.grading import LONGEST_ID, TRIES
from ratchet.consumers.rules import pairwise as rules
from ratchet.consumers.rules import verdicts
from ratchet.consumers.rules.judging import Rubric
from ratchet.consumers.rules.pairwise import ORDERS, Basis, Order, Outcome, Said
from ratchet.infra.judge import JudgeClient, JudgeRefused
from ratchet.infra.judge_cache import JudgeCache
from ratchet.infra.judge_limits import BudgetSpent
from ratchet.schemas.errors import ModelError, SettingsError
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


class Comparer:
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
        self.rubric = rubric
        self.judges = list(judges)
        self._policy = policy
        self._cache = cache
        self._without: set[str] = set()
        """Judges whose endpoint gave no token probabilities."""
        if len(self.word) > LONGEST_ID:
            raise SettingsError(f"pairwise.judges: the id {self.word[:60]}… is too long; allowed: {LONGEST_ID} letters")

    @property
    def word(self) -> str:
        """The judge id whose word counts: the only judge's, the panel's or the cascade's."""
        names = [client.model for client in self.judges]
        if len(names) == 1:
            return names[0]
        return verdicts.panel_id(names) if self._policy.combine == "panel" else verdicts.cascade_id(names)

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
            *(self._ask(client, id, asked, candidate, other, order) for order in ORDERS)
        )
        word = Opinion(client.model, None, None, basis="combined", cost_usd=0.0)
        if first.said is None or second.said is None:
            why = "; ".join(f"{one.order}: {one.why}" for one in (first, second) if one.why)
            silent = [one for one in (first, second) if one.said is None]
            return [first, second, replace(word, why=why, passing=all(one.passing for one in silent))]
        return [first, second, replace(word, said=rules.combine(first.said, second.said))]

    async def _ask(
        self, client: JudgeClient, id: str, asked: object, candidate: object, other: object, order: Order
    ) -> Opinion:
        """One judge in one order; whatever goes wrong is an abstention with its reason."""
        opinion = Opinion(client.model, order, None)
        key = self._key(client.model, order, asked, candidate, other)
        if self._cache is not None and (found := self._cache.get(key)) is not None:
            return replace(opinion, said=_recalled(found), basis=_basis(found), cost_usd=0.0, cached=True)
        prompt = rules.build_prompt(self.rubric, id, asked, candidate, other, order)
        opinion = await self._replied(client, opinion, order, *prompt)
        if opinion.said is not None and self._cache is not None:
            kept = {"outcome": opinion.said.outcome, "shares": opinion.said.distribution}
            self._cache.put(key, kept | {"why": opinion.said.rationale, "basis": opinion.basis})
        return opinion

    async def _replied(self, client: JudgeClient, opinion: Opinion, order: Order, system: str, user: str) -> Opinion:
        """A reply at temperature 0 and, where it has no probabilities, the shares of repeated ones."""
        sampled = self._policy.samples > 1
        tries = 0 if sampled and client.model in self._without else TRIES
        try:
            for _ in range(tries):
                reply = await client.ask(system, user, rules.REPLY_SCHEMA)
                opinion = _paid(opinion, reply.prompt_tokens, reply.completion_tokens, reply.cost_usd)
                if reply.refusal is not None:
                    return replace(opinion, why=f"the judge refused: {reply.refusal[:200]}")
                said = rules.read_reply(reply.text, reply.tokens, order)
                if said is None:
                    opinion = replace(opinion, why=f"no verdict in the reply {reply.text[:120]!r}")
                    continue
                if said.distribution is not None:
                    return replace(opinion, said=said, why="", basis="probabilities")
                if not reply.tokens:
                    self._without.add(client.model)
                if not sampled:
                    return replace(opinion, said=said, why="", basis="digit")
                break
            else:
                if tries:
                    return opinion
            replies = await client.sample(
                system, user, rules.REPLY_SCHEMA, self._policy.samples, self._policy.temperature
            )
        except BudgetSpent as error:
            free = not (opinion.prompt_tokens or opinion.completion_tokens)
            return replace(opinion, why=str(error), cost_usd=0.0 if free else opinion.cost_usd, passing=True)
        except (ModelError, ValueError) as error:
            passing = isinstance(error, ModelError) and not isinstance(error, JudgeRefused)
            return replace(opinion, why=str(error), passing=passing)
        opinion = _paid(opinion, replies.prompt_tokens, replies.completion_tokens, replies.cost_usd)
        said = rules.from_samples(replies.texts, order)
        if said is None or 2 * len(replies.texts) < self._policy.samples:
            few = f"{self._policy.samples} samples, too few with a verdict: {replies.texts[0][:120]!r}"
            return replace(opinion, why=few)
        return replace(opinion, said=said, why="", basis="samples")

    def _key(self, model: str, order: Order, asked: object, candidate: object, other: object) -> str:
        how = [self._policy.samples, self._policy.temperature]
        content = json.dumps(
            ["pairwise", model, self.rubric.hash, *how, order, asked, candidate, other], sort_keys=True
        )
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _paid(opinion: Opinion, prompt_tokens: int, completion_tokens: int, cost: float | None) -> Opinion:
    """Add a reply's cost: of several, one that is unknown makes the sum unknown."""
    first = not (opinion.prompt_tokens or opinion.completion_tokens)
    known = cost if first else None if cost is None or opinion.cost_usd is None else opinion.cost_usd + cost
    prompt, completion = opinion.prompt_tokens + prompt_tokens, opinion.completion_tokens + completion_tokens
    return replace(opinion, prompt_tokens=prompt, completion_tokens=completion, cost_usd=known)


def _recalled(found: Mapping[str, object]) -> Said:
    shares = cast("dict[Outcome, float] | None", found["shares"])
    return Said(cast(Outcome, found["outcome"]), shares, str(found["why"]))


def _basis(found: Mapping[str, object]) -> Basis:
    return cast("Basis", found["basis"])
