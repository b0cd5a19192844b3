"""One question to one judge, for any kind of verdict: its probabilities or samples, its cost, or why it abstains.

This is what grading one answer and comparing two share; it knows no rubric.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from ratchet.consumers.rules import verdicts
from ratchet.consumers.rules.judging import Tokens
from ratchet.consumers.rules.verdicts import Basis
from ratchet.infra.judge import JudgeClient, JudgeRefused
from ratchet.infra.judge_limits import BudgetSpent
from ratchet.schemas.errors import ModelError, SettingsError
from ratchet.schemas.judging import SeveralJudges

TRIES = 2
"""One retry of a reply without a verdict; then the judge abstains."""
LONGEST_ID = 256


class Verdict(Protocol):
    """What a reply means, with the probabilities of what else it could have been where they are known."""

    @property
    def distribution(self) -> Any: ...  # noqa: D102 - a mapping, or None


V = TypeVar("V", bound=Verdict)


@dataclass(frozen=True, slots=True)
class Question(Generic[V]):
    """What is asked, and how a reply is read.

    ``read`` gives None where a reply has no verdict, ``together`` likewise of replies that have none; ``noun`` is what
    a verdict of this kind is called.
    """

    system: str
    user: str
    schema: dict[str, Any]
    read: Callable[[str, Tokens], V | None]
    together: Callable[[Sequence[str]], V | None]
    noun: str


@dataclass(frozen=True, slots=True)
class Answer(Generic[V]):
    """What came of a question: a verdict, or why there is none.

    ``passing``: what kept the judge from saying anything goes by (a spent budget, an endpoint that is away).
    ``cost_usd`` is None where it is not known.
    """

    verdict: V | None = None
    why: str = ""
    basis: Basis | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    passing: bool = False


class Judges:
    """The judges of one policy; safe to ask from several coroutines of one event loop."""

    def __init__(self, policy: SeveralJudges, judges: Sequence[JudgeClient], setting: str) -> None:
        """Take the parts.

        Args:
            policy: how they are combined, and sampled.
            judges: at least one; a cascade's in order.
            setting: where they are named, for whoever reads an error.

        Raises:
            SettingsError: their models are too long to name together in a score.
        """
        self.judges = list(judges)
        self._policy = policy
        self._without: set[str] = set()
        """Judges whose endpoint gave no token probabilities."""
        if len(self.word) > LONGEST_ID:
            raise SettingsError(f"{setting}: the id {self.word[:60]}… is too long; allowed: {LONGEST_ID} characters")

    @property
    def word(self) -> str:
        """The judge id whose word counts: the only judge's, the panel's or the cascade's."""
        names = [client.model for client in self.judges]
        if len(names) == 1:
            return names[0]
        return verdicts.panel_id(names) if self._policy.combine == "panel" else verdicts.cascade_id(names)

    def replies(self, client: JudgeClient) -> int:
        """How many replies a question to a judge takes, as far as it is known."""
        return self._policy.samples if client.model in self._without else 1

    async def ask(self, client: JudgeClient, question: Question[V]) -> Answer[V]:
        """A reply at temperature 0, several where it has no probabilities; whatever goes wrong is an abstention."""
        answer: Answer[V] = Answer()
        sampled = self._policy.samples > 1
        tries = 0 if sampled and client.model in self._without else TRIES
        try:
            for _ in range(tries):
                reply = await client.ask(question.system, question.user, question.schema)
                answer = _paid(answer, reply.prompt_tokens, reply.completion_tokens, reply.cost_usd)
                if reply.refusal is not None:
                    return replace(answer, why=f"the judge refused: {reply.refusal[:200]}")
                verdict = question.read(reply.text, reply.tokens)
                if verdict is None:
                    answer = replace(answer, why=_unread(question.noun, reply.text))
                    continue
                if verdict.distribution is not None:
                    return replace(answer, verdict=verdict, why="", basis="probabilities")
                if not reply.tokens:
                    self._without.add(client.model)
                if not sampled:
                    return replace(answer, verdict=verdict, why="", basis="digit")
                break
            else:
                if tries:
                    return answer
            replies = await client.sample(
                question.system, question.user, question.schema, self._policy.samples, self._policy.temperature
            )
        except BudgetSpent as error:
            asked = answer.prompt_tokens or answer.completion_tokens
            return replace(answer, why=str(error), cost_usd=answer.cost_usd if asked else 0.0, passing=True)
        except (ModelError, ValueError) as error:
            passing = isinstance(error, ModelError) and not isinstance(error, JudgeRefused)
            return replace(answer, why=str(error), passing=passing)
        answer = _paid(answer, replies.prompt_tokens, replies.completion_tokens, replies.cost_usd)
        verdict = question.together(replies.texts)
        if verdict is None or 2 * len(replies.texts) < self._policy.samples:
            few = f"{self._policy.samples} samples, too few with a {question.noun}"
            return replace(answer, why=f"{few}; {_unread(question.noun, replies.texts[0])}")
        return replace(answer, verdict=verdict, why="", basis="samples")


def _paid(answer: Answer[V], prompt_tokens: int, completion_tokens: int, cost: float | None) -> Answer[V]:
    """Add a reply's cost: of several, one that is unknown makes the sum unknown."""
    first = not (answer.prompt_tokens or answer.completion_tokens)
    known = cost if first else None if cost is None or answer.cost_usd is None else answer.cost_usd + cost
    prompt, completion = answer.prompt_tokens + prompt_tokens, answer.completion_tokens + completion_tokens
    return replace(answer, prompt_tokens=prompt, completion_tokens=completion, cost_usd=known)


def _unread(noun: str, text: str) -> str:
    return f"no {noun} in the reply {text[:120]!r}" if text.strip() else "an empty reply"
