"""Judges at work on one answer, against real HTTP servers: criteria, panels, cascades, samples, cache, bad replies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, says

from ratchet.consumers.grading import Grader, choose, load_rubric
from ratchet.consumers.rules.judging import Judgement, parse_rubric
from ratchet.consumers.rules.verdicts import Grade
from ratchet.infra.judge import JudgeClient
from ratchet.infra.judge_cache import JudgeCache
from ratchet.infra.judge_limits import Limits
from ratchet.schemas.errors import SettingsError, StartError
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.pricing import Price

ID = "019a0000-0000-7000-8000-000000000001"
OTHER = ID[:-1] + "2"
PRICE = Price(prompt_per_million=1e4, completion_per_million=1e5)
SURE = {"4": 1.0}
TORN = {"1": 0.5, "5": 0.5}


@pytest.fixture
def second() -> Iterator[JudgeServer]:
    """Another judge: says 2, surely."""
    served = JudgeServer(lambda body: says("2", top={"2": 1.0}))
    yield served
    served.close()


def client(endpoint: JudgeServer, model: str = "small", **more: Any) -> JudgeClient:
    """A judge without retries."""
    return JudgeClient(endpoint.url, model, retries=0, timeout_s=5, **more)


def grader(*judges: JudgeClient, cache: JudgeCache | None = None, rubric: str = "helpful.v1", **policy: Any) -> Grader:
    """What grades by that policy."""
    return Grader(JudgePolicy(**policy), load_rubric(rubric), judges, cache)


async def grades(of: Grader, answer: object = "Friday.", id: str = ID) -> list[Grade]:
    """What is said of one answer."""
    return await of.grade(id, [{"role": "user", "content": "When?"}], answer)


async def test_each_criterion_is_asked_by_itself(endpoint: JudgeServer) -> None:
    """A question a criterion, with its anchors alone; a grade each and their mean, which costs nothing more."""

    def by_criterion(body: dict[str, Any]) -> Any:
        digit = {"correct": "5", "complete": "3", "form": "1"}
        (asked,) = [name for name in digit if f"Criterion: {_first(name)}" in body["messages"][1]["content"]]
        return says(digit[asked], top={digit[asked]: 1.0})

    endpoint.answer = by_criterion
    found = await grades(grader(client(endpoint, price=PRICE), rubric="quality.v1"))
    assert [(one.rubric, one.judgement and one.judgement.score) for one in found] == [
        ("quality.v1/correct", 1.0),
        ("quality.v1/complete", 0.5),
        ("quality.v1/form", 0.0),
        ("quality.v1", 0.5),
    ]
    assert [one.cost_usd for one in found] == [pytest.approx(0.5)] * 3 + [0.0]
    assert len({body["messages"][0]["content"] for body in endpoint.asked}) == 1


def _first(criterion: str) -> str:
    (text,) = [one.text for one in load_rubric("quality.v1").criteria if one.name == criterion]
    return text.removeprefix("Criterion: ").split("\n")[0]


async def test_a_panel_keeps_every_word_and_has_one_of_its_own(endpoint: JudgeServer, second: JudgeServer) -> None:
    """Two judges are asked; both grades and the panel's mean with the spread between them come back."""
    endpoint.answer = lambda body: says("4", top=SURE)
    found = await grades(grader(client(endpoint), client(second, "other")))
    assert [(one.judge, one.judgement and one.judgement.score) for one in found] == [
        ("small", 0.75),
        ("other", 0.25),
        ("panel:other+small", 0.5),
    ]
    assert found[-1].spread == pytest.approx(math.sqrt(0.125))
    assert found[-1].judgement is not None
    assert found[-1].judgement.distribution == {"1": 0, "2": 0.5, "3": 0, "4": 0.5, "5": 0}


async def test_a_cascade_goes_on_only_where_the_small_judge_is_not_sure(
    endpoint: JudgeServer, second: JudgeServer
) -> None:
    """A sure answer costs the small judge alone; a torn one, or an abstention, asks the large one as well."""
    of = grader(client(endpoint), client(second, "large"), combine="cascade", min_confidence=0.7)
    endpoint.answer = lambda body: says("4", top=SURE)
    found = await grades(of)
    assert ([one.judge for one in found], len(second.asked)) == (["small", "cascade:small>large"], 0)
    endpoint.answer = lambda body: says("5", top=TORN)
    found = await grades(of, "Monday.")
    assert [one.judgement and one.judgement.score for one in found] == [0.5, 0.25, 0.25]
    endpoint.answer = lambda body: says("prose")
    found = await grades(of, "Tuesday.")
    assert [one.judgement and one.judgement.score for one in found] == [None, 0.25, 0.25]


async def test_without_probabilities_samples_are_averaged_and_it_says_so(endpoint: JudgeServer) -> None:
    """The first reply shows that there are none; from then on k samples at the policy's temperature, in one request."""
    left = ["3", "5", "5", "4"] * 2
    endpoint.answer = lambda body: says(*[left.pop(0) for _ in range(body.get("n", 1))])
    of = grader(client(endpoint, price=PRICE), samples=3, temperature=0.9)
    [first] = await grades(of)
    assert first.judgement is not None
    assert (first.basis, first.judgement.score) == ("samples", pytest.approx((1 + 1 + 0.75) / 3))
    assert first.judgement.distribution == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 1 / 3, "5": 2 / 3})
    assert (first.prompt_tokens, first.completion_tokens, first.cost_usd) == (60, 8, pytest.approx(1.4))
    assert [(body["temperature"], body.get("n")) for body in endpoint.asked] == [(0.0, None), (0.9, 3)]
    await grades(of, "Monday.")
    assert endpoint.asked[-1]["n"] == 3
    assert len(endpoint.asked) == 3


BAD = {
    "prose": (says("What a lovely answer"), "no score in the reply 'What a lovely answer'"),
    "eleven of five": (says('{"score": 11, "rationale": "x"}'), "no score in the reply"),
    "empty": (says(""), "an empty reply"),
    "refusal": (says("", refusal="I will not grade this."), "the judge refused: I will not grade this."),
    "NaN": (says("4", top={"4": math.nan, "5": 0.5}), "the probabilities at the score are no numbers"),
    "no JSON": ((200, "<html>"), "judge small: "),
    "no choices": ((200, {"choices": []}), "a reply without choices"),
    "error": ((500, {"error": {"message": "boom"}}), "boom"),
}


@pytest.mark.parametrize("case", BAD)
async def test_whatever_a_judge_does_wrong_is_an_abstention_with_its_reason(endpoint: JudgeServer, case: str) -> None:
    """Prose, 11 of 5, nothing, a refusal, NaN, no JSON, no choices, a 500: no score, and why."""
    reply, why = BAD[case]
    endpoint.answer = lambda body: reply
    [found] = await grades(grader(client(endpoint)))
    assert found.judgement is None
    assert why in found.why


async def test_samples_that_cannot_be_read_are_an_abstention(endpoint: JudgeServer) -> None:
    """Most samples without a score leave none, and what they cost is kept."""
    left = [says("4"), says("4", "prose", "prose")]
    endpoint.answer = lambda body: left.pop(0)
    [found] = await grades(grader(client(endpoint)))
    assert (found.judgement, found.prompt_tokens) == (None, 60)
    assert found.why.startswith("3 samples, too few with a score")


async def test_a_spent_budget_abstains_and_costs_nothing(endpoint: JudgeServer) -> None:
    """The reason says when it goes on; nothing is asked."""
    [found] = await grades(grader(client(endpoint, limits=Limits(tokens_per_day=10))))
    assert (found.judgement, found.cost_usd, endpoint.asked) == (None, 0.0, [])
    assert "it goes on at" in found.why


async def test_the_same_content_is_not_paid_twice(endpoint: JudgeServer, tmp_path: Path) -> None:
    """A hit is marked and costs 0, also after a restart; another answer, judge or rubric is another question."""
    endpoint.answer = lambda body: says("4", top=SURE)
    path = tmp_path / "home" / "cache.sqlite3"
    cache = JudgeCache(path)
    [paid] = await grades(grader(client(endpoint, price=PRICE), cache=cache))
    cache.close()
    cache = JudgeCache(path)
    of = grader(client(endpoint, price=PRICE), cache=cache)
    assert await grades(of) == [paid], "the answer that paid for it, delivered again, is the same row again"
    [hit] = await grades(of, id=OTHER)
    assert (hit.cached, hit.cost_usd, hit.prompt_tokens, hit.judgement) == (True, 0.0, 0, paid.judgement)
    assert (hit.basis, hit.spread, len(endpoint.asked)) == (paid.basis, paid.spread, 1)
    await grades(of, "Monday.")
    await grades(grader(client(endpoint, "other"), cache=cache))
    await grades(grader(client(endpoint), cache=cache, rubric="quality.v1"))
    assert len(endpoint.asked) == 1 + 1 + 1 + 3
    cache.close()


async def test_the_same_question_at_the_same_time_is_asked_once(endpoint: JudgeServer, tmp_path: Path) -> None:
    """Five at once: one pays, four find it."""
    endpoint.answer = lambda body: says("4", top=SURE)
    cache = JudgeCache(tmp_path / "cache.sqlite3")
    of = grader(client(endpoint), cache=cache)
    found = await asyncio.gather(*(grades(of, id=f"{ID[:-1]}{number}") for number in range(5)))
    assert [one.cached for [one] in found].count(False) == len(endpoint.asked) == 1
    cache.close()


async def test_abstentions_are_not_remembered(endpoint: JudgeServer, tmp_path: Path) -> None:
    """A judge that was away, or spoke prose, is asked again."""
    cache = JudgeCache(tmp_path / "cache.sqlite3")
    of = grader(client(endpoint), cache=cache)
    endpoint.answer = lambda body: says("prose")
    await grades(of)
    endpoint.answer = lambda body: says("5", top={"5": 1.0})
    [found] = await grades(of)
    assert found.judgement is not None
    assert not found.cached
    cache.close()


def test_a_cache_is_bounded_and_says_what_it_cannot_open(tmp_path: Path) -> None:
    """The oldest values go; a file that is no cache ends the start in one sentence."""
    cache = JudgeCache(tmp_path / "cache.sqlite3", most=100)
    for number in range(501):
        cache.put(str(number), {"n": number})
    assert cache.get("400") is None
    assert cache.get("401") == {"n": 401}
    cache.close()
    cache.put("late", {})  # a cache that fails is no reason to lose a score
    assert cache.get("401") is None
    (tmp_path / "other").write_text("no database, and long enough to be looked at as one")
    with pytest.raises(StartError, match="delete the file"):
        JudgeCache(tmp_path / "other")


def test_what_every_judge_would_have_said(endpoint: JudgeServer) -> None:
    """A hollow answer or a time-out gives the same rows as asking would, for every judge and criterion."""
    of = grader(client(endpoint, "a"), client(endpoint, "b"), rubric="quality.v1")
    found = of.same(Judgement(0.0, None, "empty"))
    assert len(found) == 3 * 3 + 1
    assert {one.judge for one in found} == {"a", "b", "panel:a+b"}
    assert all(one.rejected and one.judgement for one in found)
    assert found[-1].rubric == "quality.v1"
    assert {one.why for one in of.same(None, "late")[:3]} == {"late"}


def test_which_judges_a_policy_names(endpoint: JudgeServer) -> None:
    """The only one where none is named; else those named, in order; an unknown name is refused with what is allowed."""
    clients = {"a": client(endpoint, "a"), "b": client(endpoint, "b")}
    assert choose("t", JudgePolicy(judges=["b", "a"]), clients) == [clients["b"], clients["a"]]
    assert choose("t", JudgePolicy(), {"a": clients["a"]}) == [clients["a"]]
    for policy in (JudgePolicy(), JudgePolicy(judges=["c"])):
        with pytest.raises(SettingsError, match=r"tasks\.t\.judge\.judges: .*allowed: one or more of a, b"):
            choose("t", policy, clients)


def test_an_id_that_no_score_can_carry_is_refused_at_start(endpoint: JudgeServer) -> None:
    """A panel's id names its models; one that would not fit is said at once, not with the first answer."""
    with pytest.raises(SettingsError, match="allowed: 256 characters"):
        grader(client(endpoint, "a" * 200), client(endpoint, "b" * 200))


CRITERION = "## criterion tone\nIs it kind?\n5: yes\n4: mostly\n3: so so\n2: hardly\n1: no\n"


def test_your_own_rubrics(tmp_path: Path) -> None:
    """A folder's rubrics stand beside the package's; names that leave it, or that the package has, are refused."""
    folder = tmp_path / "rubrics"
    folder.mkdir()
    (folder / "tone.v1.md").write_text(f"## system\nGrade.\n{CRITERION}## user\n{{{{data}}}}\n{{{{criterion}}}}")
    assert [one.name for one in load_rubric("tone.v1", folder).criteria] == ["tone"]
    (tmp_path / "outside.v1.md").write_text("## system\nGrade.\n## user\n{{data}}")
    (folder / "link.v1.md").symlink_to(tmp_path / "outside.v1.md")
    for name in ("../outside.v1", "link.v1", "none.v1"):
        with pytest.raises(SettingsError, match=r"allowed: helpful\.v1, .*tone\.v1"):
            load_rubric(name, folder)
    (folder / "helpful.v1.md").write_text("## system\nGrade.\n## user\n{{data}}")
    with pytest.raises(SettingsError, match="name of a rubric in the package"):
        load_rubric("helpful.v1", folder)
    (folder / "bad.v1.md").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="utf-8"):
        load_rubric("bad.v1", folder)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (CRITERION.replace("2: hardly\n", ""), r"does not say what \['2'\] mean"),
        (CRITERION + CRITERION, "allowed: each once"),
        (CRITERION.replace("tone", "To ne"), "allowed: each once"),
        ("", "go together"),
    ],
)
def test_criteria_are_anchored(text: str, problem: str) -> None:
    """Each criterion has one name and says what every grade means; a place for it without one is refused."""
    with pytest.raises(ValueError, match=problem):
        parse_rubric("r.v1", f"## system\nGrade.\n{text}## user\n{{{{data}}}} {{{{criterion}}}}")
    with pytest.raises(ValueError, match="unknown places"):
        parse_rubric("r.v1", "## system\n{{who}}\n## user\n{{data}}")
