"""One task's judges at work on one answer: each criterion by each judge, from the cache where it was said before.

This is the part that live judging, judging again and calibration share; it knows no events.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any, cast
from weakref import WeakValueDictionary

from ratchet.consumers.asking import Answer, Judges, Question
from ratchet.consumers.rules import judging, verdicts
from ratchet.consumers.rules.judging import Criterion, Judgement, Rubric
from ratchet.consumers.rules.verdicts import Basis, Grade
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_cache import JudgeCache
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.judging import JudgePolicy

PROMPTS = "ratchet.consumers.prompts"
_SUFFIX = ".md"


def load_rubric(name: str, folder: Path | None = None) -> Rubric:
    """Read a rubric out of the package, or out of the user's own folder.

    Args:
        name: ``<name>.vN``; a name of the package's is not to be had a second time.
        folder: of the user's rubrics; it need not exist.

    Raises:
        SettingsError: no such rubric, one without its sections, or one outside the folder.
    """
    packaged = resources.files(PROMPTS).joinpath(f"{name}{_SUFFIX}")
    names = {
        file.name.removesuffix(_SUFFIX) for file in resources.files(PROMPTS).iterdir() if file.name.endswith(_SUFFIX)
    }
    own = _own_rubrics(folder)
    try:
        if name in names and name in own:
            raise SettingsError(
                f"judge.rubric: {own[name]} has the name of a rubric in the package; allowed: another one"
            )
        if name not in names and name not in own:
            raise SettingsError(
                f"judge.rubric: {name!r} is not in the package"
                f"{f' nor in {folder}' if folder else ''}; allowed: {', '.join(sorted(names | own.keys()))}"
            )
        text = packaged.read_text(encoding="utf-8") if name in names else own[name].read_text(encoding="utf-8")
        return judging.parse_rubric(name, text)
    except (OSError, ValueError) as error:  # not UTF-8, among others
        raise SettingsError(f"judge.rubric: {error}") from None


def _own_rubrics(folder: Path | None) -> dict[str, Path]:
    """Rubrics in a folder, by name; a link that leads out of it is none."""
    if folder is None or not folder.is_dir():
        return {}
    inside = folder.resolve()
    found = (path for path in inside.glob(f"*{_SUFFIX}") if path.is_file() and path.resolve().parent == inside)
    return {path.name.removesuffix(_SUFFIX): path for path in found}


def choose(task: str, policy: JudgePolicy, clients: Mapping[str, JudgeClient]) -> list[JudgeClient]:
    """The judges that a task's policy names.

    Raises:
        SettingsError: one that does not exist, or none is named and there are several.
    """
    if not policy.judges and len(clients) == 1:
        return list(clients.values())
    unknown = [name for name in policy.judges if name not in clients]
    if unknown or not policy.judges:
        raise SettingsError(
            f"tasks.{task}.judge.judges: {unknown}; allowed: one or more of {', '.join(sorted(clients))}"
        )
    return [clients[name] for name in policy.judges]


class Grader(Judges):
    """Grades answers by a rubric; safe to use from several coroutines of one event loop."""

    def __init__(
        self, policy: JudgePolicy, rubric: Rubric, judges: Sequence[JudgeClient], cache: JudgeCache | None = None
    ) -> None:
        """Take the parts.

        Args:
            policy: how the judges are combined, and sampled.
            rubric: from `load_rubric`.
            judges: at least one; a cascade's in order.
            cache: of what was said before; None pays every time.

        Raises:
            SettingsError: the judges' models are too long to name together in a score.
        """
        super().__init__(policy, judges, "judge.judges")
        self.rubric = rubric
        self._cache = cache
        self._asking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def grade(self, target_id: str, asked: object, answer: object) -> list[Grade]:
        """Ask the judges.

        Args:
            target_id: id of what is judged.
            asked: the messages or the prompt, as JSON values.
            answer: the answer's text, or its tool calls as JSON values.

        Returns:
            Every judge's grade by every criterion, then the panel's or the cascade's by each, then, of a
            rubric with several criteria, their mean. The last grade is the word that counts.
        """
        by_criterion = await asyncio.gather(
            *(self._by_criterion(criterion, target_id, asked, answer) for criterion in self.rubric.criteria)
        )
        return self._with_overall(by_criterion)

    def same(self, judgement: Judgement | None, why: str = "", *, passing: bool = False) -> list[Grade]:
        """What `grade` would give, had every judge said the same without being asked.

        Args:
            judgement: what is to be said; None: they abstain.
            why: the reason of an abstention.
            passing: it goes by.
        """
        names = [client.model for client in self.judges]
        names += [self.word] if len(names) > 1 else []
        grades = [
            [Grade(name, self.rubric.of(criterion), judgement, why, self._basis(name), cost_usd=0.0) for name in names]
            for criterion in self.rubric.criteria
        ]
        flat = self._with_overall(grades)
        said: dict[str, Any] = {"judgement": judgement, "why": why, "rejected": judgement is not None}
        return [replace(grade, **said, passing=passing) for grade in flat]

    def _basis(self, judge: str) -> Basis | None:
        return "combined" if judge not in {client.model for client in self.judges} else None

    def questions(self, target_id: str, asked: object, answer: object) -> list[tuple[JudgeClient, int, float]]:
        """What `grade` asks at most if nothing was said before: for each question its judge, tokens and USD.

        USD are 0 without a price. Samples count where a judge is known to give no token probabilities.
        """
        found = []
        for client in self.judges:
            for criterion in self.rubric.criteria:
                prompt = judging.build_prompt(self.rubric, target_id, asked, answer, criterion)
                found.append((client, *client.estimate(*prompt, self.replies(client))))
        return found

    def _with_overall(self, by_criterion: Sequence[Sequence[Grade]]) -> list[Grade]:
        flat = [grade for grades in by_criterion for grade in grades]
        if len(by_criterion) > 1:
            flat.append(verdicts.overall([grades[-1] for grades in by_criterion], self.rubric.name))
        return flat

    async def _by_criterion(self, criterion: Criterion, target_id: str, asked: object, answer: object) -> list[Grade]:
        async def one(client: JudgeClient) -> Grade:
            return await self._one(client, criterion, target_id, asked, answer)

        if len(self.judges) == 1:
            return [await one(self.judges[0])]
        if self._policy.combine == "panel":
            grades = list(await asyncio.gather(*map(one, self.judges)))
            return [*grades, verdicts.panel(grades, self._policy.quorum)]
        grades = []
        for client in self.judges:
            grades.append(await one(client))
            if grades[-1].judgement and verdicts.confidence(grades[-1]) >= self._policy.min_confidence:
                break
        return [*grades, verdicts.cascade([client.model for client in self.judges], grades)]

    async def _one(
        self, client: JudgeClient, criterion: Criterion, target_id: str, asked: object, answer: object
    ) -> Grade:
        key = self._key(client, criterion, asked, answer)
        # whoever asks the same at the same time waits for the one answer
        async with self._asking.setdefault(key, asyncio.Lock()):
            found = self._cache.get(key) if self._cache is not None else None
            if found is not None:
                return _recalled(Grade(client.model, self.rubric.of(criterion), None), found, target_id)
            question = Question(
                *judging.build_prompt(self.rubric, target_id, asked, answer, criterion),
                schema=judging.REPLY_SCHEMA,
                read=judging.read_reply,
                together=verdicts.from_samples,
                noun="score",
            )
            grade = _grade(client.model, self.rubric.of(criterion), await self.ask(client, question))
            if self._cache is not None and grade.judgement is not None:
                self._cache.put(key, _remembered(grade, target_id))
            return grade

    def _key(self, client: JudgeClient, criterion: Criterion, asked: object, answer: object) -> str:
        about = [client.model, self.rubric.hash, criterion.name, self._policy.samples, self._policy.temperature]
        content = json.dumps([*about, asked, answer], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _grade(judge: str, rubric: str, answer: Answer[Judgement]) -> Grade:
    return Grade(
        judge,
        rubric,
        answer.verdict,
        answer.why,
        answer.basis,
        None if answer.verdict is None else verdicts.spread(answer.verdict.distribution),
        answer.prompt_tokens,
        answer.completion_tokens,
        answer.cost_usd,
        passing=answer.passing,
    )


_PAID = ("prompt_tokens", "completion_tokens", "cost_usd")


def _remembered(grade: Grade, target_id: str) -> dict[str, object]:
    """A grade as the cache keeps it, with who paid for it."""
    assert grade.judgement is not None
    paid = {name: getattr(grade, name) for name in _PAID}
    return asdict(grade.judgement) | {"basis": grade.basis, "target": target_id, "paid": paid}


def _recalled(grade: Grade, found: Mapping[str, object], target_id: str) -> Grade:
    """A grade out of the cache: a hit that cost nothing, but for the very answer (delivered again) that paid for it."""
    value = cast(dict[str, Any], found)
    judgement = Judgement(value["score"], value["distribution"], value["rationale"])
    again = value["target"] == target_id
    paid = value["paid"] if again else {"cost_usd": 0.0}
    spread = verdicts.spread(judgement.distribution)
    return replace(grade, judgement=judgement, basis=value["basis"], spread=spread, cached=not again, **paid)
