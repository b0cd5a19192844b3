from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from judge_server import JudgeServer, says
from pydantic import SecretStr

from ratchet.consumers.judge import Judge
from ratchet.infra.judge import JudgeClient, JudgeRefused, make_judge
from ratchet.infra.judge_settings import JudgeSettings
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import ModelError, SettingsError
from ratchet.schemas.events import Inference, Request, Response, Score, Shadow
from ratchet.schemas.ids import derived_id
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price


def answered(content: str | None, number: int = 0, **more: Any) -> Inference:
    """A production answer."""
    fields: dict[str, Any] = {
        "id": derived_id(1_700_000_000_000, "judged", str(number)),
        "at": "2026-11-01T12:00:00Z",
        "task": "support",
        "adapter": "base",
        "base_model": "tiny",
        "request": Request(messages=[{"role": "user", "content": "Where is order 12?"}]),
        "response": Response(content=content),
        "status": "ok",
        "latency_ms": 1,
        "source": "gateway",
        "stage": "stable",
    }
    return Inference(**(fields | more))


NOW = datetime(2026, 11, 1, 12, 0, 5, tzinfo=UTC)


def judge(endpoint: JudgeServer, publisher: MemoryPublisher, fraction: float = 1.0, **more: Any) -> Judge:
    """A judge of the task on that endpoint, which gives no probabilities and is not asked again for samples."""
    tasks = {"support": TaskPolicy(judge=JudgePolicy(fraction=fraction, samples=1))}
    client = JudgeClient(endpoint.url, "the-judge", timeout_s=5, retries=0, **more)
    return Judge(tasks, publisher, {"default": client}, now=lambda: NOW)


def scores(publisher: MemoryPublisher) -> list[Score]:
    """What was published."""
    return [event for event in publisher.events if isinstance(event, Score)]


async def test_score_with_distribution(endpoint: JudgeServer) -> None:
    """The published score is the expectation over the score token, with judge, rubric, tokens and distribution."""
    endpoint.answer = lambda body: says("4", top={"4": 0.5, "5": 0.5})
    publisher = MemoryPublisher()
    event = answered("It arrives on Friday.")
    handler = judge(endpoint, publisher)
    await handler.handle(event)
    await handler.handle(event)
    first, again = scores(publisher)
    assert first == again
    assert first.score == pytest.approx(0.875)
    assert first.distribution == pytest.approx({"1": 0, "2": 0, "3": 0, "4": 0.5, "5": 0.5})
    assert (first.judge, first.rubric, first.kind, first.target_id) == (
        "the-judge",
        "helpful.v1",
        "pointwise",
        event.id,
    )
    assert (first.prompt_tokens, first.completion_tokens, first.at) == (30, 2, event.at)
    asked = endpoint.asked[0]
    assert asked["temperature"] == 0
    assert "It arrives on Friday." in asked["messages"][1]["content"]


async def test_without_probabilities_the_digit_counts(endpoint: JudgeServer) -> None:
    """An endpoint without logprobs gives the digit's score and no distribution."""
    publisher = MemoryPublisher()
    await judge(endpoint, publisher).handle(answered("fine"))
    (score,) = scores(publisher)
    assert (score.score, score.distribution, score.verdict) == (0.75, None, "4")


async def test_what_an_endpoint_refuses_is_left_out(endpoint: JudgeServer) -> None:
    """Where structured output or probabilities are refused, the client asks for less and remembers it."""

    def picky(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if "response_format" in body or "logprobs" in body:
            return 400, {"error": {"message": "unsupported"}}
        return says("2")

    endpoint.answer = picky
    client = JudgeClient(endpoint.url, "m", retries=0)
    assert (await client.ask("s", "u", {"type": "object"})).text == "2"
    before = len(endpoint.asked)
    await client.ask("s", "u", {"type": "object"})
    assert len(endpoint.asked) == before + 1
    await client.close()


async def test_unreadable_replies_abstain_after_one_retry(endpoint: JudgeServer) -> None:
    """A judge without a score is asked once more, then abstains and says what it had said."""
    endpoint.answer = lambda body: says("What a lovely answer")
    publisher = MemoryPublisher()
    await judge(endpoint, publisher).handle(answered("fine"))
    (score,) = scores(publisher)
    assert (score.verdict, score.score) == ("abstain", None)
    assert "lovely" in (score.rationale or "")
    assert len(endpoint.asked) == 2


async def test_an_endpoint_that_is_away_abstains_and_is_left_alone(endpoint: JudgeServer) -> None:
    """Failures abstain and never score 0; after some in a row the endpoint has a pause, then is asked again."""
    endpoint.answer = lambda body: (503, {"error": {"message": "overloaded"}})
    publisher = MemoryPublisher()
    clock = [0.0]
    handler = judge(endpoint, publisher, failures=2, pause_s=10, monotonic=lambda: clock[0])
    for number in range(4):
        await handler.handle(answered("fine", number))
    assert [score.verdict for score in scores(publisher)] == ["abstain"] * 4
    assert all(score.score is None for score in scores(publisher))
    assert len(endpoint.asked) == 2
    endpoint.answer = lambda body: says("5")
    clock[0] = 11.0
    await handler.handle(answered("fine", 9))
    assert scores(publisher)[-1].score == 1.0


async def test_a_refused_prompt_abstains_without_a_pause(endpoint: JudgeServer) -> None:
    """A prompt that the endpoint does not take (too long) concerns this answer alone."""
    endpoint.answer = lambda body: (400, {"error": {"message": "context length exceeded"}})
    publisher = MemoryPublisher()
    handler = judge(endpoint, publisher, failures=1)
    await handler.handle(answered("fine", 1))
    endpoint.answer = lambda body: says("3")
    await handler.handle(answered("fine", 2))
    assert [score.score for score in scores(publisher)] == [None, 0.5]
    assert "context length" in (scores(publisher)[0].rationale or "")


async def test_a_silent_endpoint_costs_bounded_time(endpoint: JudgeServer) -> None:
    """A judge that does not answer within the patience abstains."""
    held = threading.Event()

    def silent(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        held.wait(10)
        return says("5")

    endpoint.answer = silent
    publisher = MemoryPublisher()
    await judge(endpoint, publisher, patience_s=0.2).handle(answered("fine"))
    held.set()
    assert scores(publisher)[0].verdict == "abstain"


async def test_all_of_an_answers_judges_together_have_bounded_time(endpoint: JudgeServer) -> None:
    """Whatever its judges, criteria and retries add up to, an answer ends in time for Kafka: they abstain."""
    held = threading.Event()

    def silent(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        held.wait(10)
        return says("5")

    endpoint.answer = silent
    publisher = MemoryPublisher()
    clients = {name: JudgeClient(endpoint.url, name) for name in ("a", "b")}
    tasks = {"support": TaskPolicy(judge=JudgePolicy(fraction=1.0, judges=["a", "b"]))}
    await Judge(tasks, publisher, clients, longest_s=0.2).handle(answered("fine"))
    held.set()
    assert [(score.judge, score.verdict) for score in scores(publisher)] == [
        ("a", "abstain"),
        ("b", "abstain"),
        ("panel:a+b", "abstain"),
    ]
    assert len({score.id for score in scores(publisher)}) == 3


async def test_a_panels_scores_are_events_of_their_own(endpoint: JudgeServer) -> None:
    """Two judges and three criteria: each word, the panel's by criterion and over all of them, with ids that differ."""
    endpoint.answer = lambda body: says("4", top={"4": 0.5, "5": 0.5})
    publisher = MemoryPublisher()
    price = Price(prompt_per_million=1e4, completion_per_million=1e5)
    clients = {name: JudgeClient(endpoint.url, name, price=price) for name in ("a", "b")}
    policy = JudgePolicy(fraction=1.0, judges=["b", "a"], rubric="quality.v1")
    await Judge({"support": TaskPolicy(judge=policy)}, publisher, clients, now=lambda: NOW).handle(answered("fine"))
    found = scores(publisher)
    assert len({score.id for score in found}) == len(found) == 3 * 3 + 1
    word = found[-1]
    assert (word.judge, word.rubric, word.basis, word.score) == ("panel:a+b", "quality.v1", "combined", 0.875)
    assert sum(score.cost_usd or 0 for score in found) == pytest.approx(6 * 0.5)
    first = found[0]
    assert (first.rubric, first.basis, first.judged_at) == ("quality.v1/correct", "probabilities", NOW)
    assert first.spread == pytest.approx(0.125)


@pytest.mark.parametrize("content", ["", "  ", ":", "Thought process:"])
async def test_hollow_answers_are_rejected_unseen(endpoint: JudgeServer, content: str) -> None:
    """Empty and master-key answers get the lowest score without asking a judge, which they would fool."""
    publisher = MemoryPublisher()
    await judge(endpoint, publisher).handle(answered(content))
    (score,) = scores(publisher)
    assert (score.score, score.verdict) == (0.0, "rejected")
    assert score.rationale
    assert endpoint.asked == []


async def test_sample_and_its_probability(endpoint: JudgeServer) -> None:
    """A share of ordinary answers and every refusal is judged; each score says how likely it was drawn."""
    publisher = MemoryPublisher()
    handler = judge(endpoint, publisher, fraction=0.3)
    for number in range(60):
        await handler.handle(answered("I cannot help with that." if number % 6 == 0 else "Friday.", number))
    found = scores(publisher)
    assert sum(score.inclusion_probability == 1.0 for score in found) == 10
    assert {score.inclusion_probability for score in found} == {0.3, 1.0}
    assert 10 < len(found) < 45


async def test_both_arms_of_a_request_are_judged_or_neither(endpoint: JudgeServer) -> None:
    """A shadow answer is drawn by its production request's id."""
    publisher = MemoryPublisher()
    handler = judge(endpoint, publisher, fraction=0.5)
    rollout = derived_id(1, "rollout")
    for number in range(20):
        event = answered("Friday.", number)
        ids = {"schema": "shadow.v1", "stage": "shadow", "rollout_id": rollout, "inference_id": event.id}
        fields = event.model_dump(by_alias=True) | ids | {"id": derived_id(2, "shadow", str(number))}
        await handler.handle(event)
        await handler.handle(Shadow.model_validate(fields))
    targets = [score.target for score in scores(publisher)]
    assert targets == ["inference", "shadow"] * (len(targets) // 2)
    assert 0 < len(targets) < 40


async def test_what_is_not_judged(endpoint: JudgeServer) -> None:
    """Failed calls and tasks without a judge are not judged; an answer of tool calls is."""
    publisher = MemoryPublisher()
    handler = judge(endpoint, publisher)
    await handler.handle(answered(None, status="error", response=None))
    await handler.handle(answered("x", task="other"))
    assert scores(publisher) == []
    calls: list[dict[str, Any]] = [{"id": "1", "type": "function", "function": {"name": "ship", "arguments": "{}"}}]
    await handler.handle(answered(None, response=Response(tool_calls=calls)))
    assert scores(publisher)[0].score == 0.75
    off = Judge({"support": TaskPolicy(judge=JudgePolicy(enabled=False))}, publisher, {})
    await off.handle(answered("x", 5))
    assert len(scores(publisher)) == 1


async def test_which_judge_the_settings_name(endpoint: JudgeServer) -> None:
    """A named judge gets its key; without one the served base model on the first replica judges."""
    named = make_judge(JudgeSettings(url=endpoint.url, model="big", api_key=SecretStr("k1")), ["http://x"], "tiny")
    await named.ask("s", "u")
    assert (endpoint.asked[0]["model"], endpoint.asked[0]["authorization"]) == ("big", "Bearer k1")
    local = make_judge(JudgeSettings(), [endpoint.url.removesuffix("/v1")], "tiny")
    await local.ask("s", "u")
    assert (endpoint.asked[1]["model"], endpoint.asked[1]["path"]) == ("tiny", "/v1/chat/completions")
    with pytest.raises(SettingsError, match=r"judges\.default\.model"):
        make_judge(JudgeSettings(url=endpoint.url), ["http://x"], "tiny")


async def test_away_and_refused_are_different_errors(endpoint: JudgeServer) -> None:
    """An endpoint that is away raises ModelError, one that refuses the prompt JudgeRefused."""
    endpoint.answer = lambda body: (400, {"error": {"message": "no"}})
    with pytest.raises(JudgeRefused):
        await JudgeClient(endpoint.url, "m", retries=0).ask("s", "u")
    with pytest.raises(ModelError, match="judge m"):
        await JudgeClient("http://127.0.0.1:9/v1", "m", retries=0).ask("s", "u")
