"""A judge's client against a real HTTP server: what it retries, what it gives up, what it counts."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from judge_server import JudgeServer, says

from ratchet.infra.judge import JudgeClient, JudgeRefused, make_judge
from ratchet.infra.judge_limits import BudgetSpent, Limits
from ratchet.infra.judge_settings import JudgeSettings
from ratchet.schemas.errors import ModelError, SettingsError
from ratchet.schemas.pricing import Price

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PRICE = Price(prompt_per_million=10_000, completion_per_million=100_000)


@pytest.fixture
def endpoint() -> Iterator[JudgeServer]:
    """A judge that says 4."""
    served = JudgeServer(lambda body: says("4"))
    yield served
    served.close()


class Slept:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, list[float]()

    async def __call__(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def client(endpoint: JudgeServer, slept: Slept, **more: Any) -> JudgeClient:
    """A client of the server."""
    settings = {"timeout_s": 5, "jitter": lambda: 0.0, "sleep": slept, "monotonic": lambda: slept.now} | more
    return JudgeClient(endpoint.url, "m", now=lambda: NOON, **settings)


def script(endpoint: JudgeServer, *replies: Any) -> None:
    """Have the server say these one after the other, the last one for ever."""
    left = list(replies)
    endpoint.answer = lambda body: left.pop(0) if len(left) > 1 else left[0]


async def test_429_and_5xx_are_tried_again_as_the_endpoint_asks(endpoint: JudgeServer) -> None:
    """Retry-After is honoured, without it the wait doubles; then the answer counts as any other."""
    slept = Slept()
    script(endpoint, (429, {}, {"retry-after": "7"}), (503, {}), (500, {}), says("5"))
    reply = await client(endpoint, slept, retries=3).ask("s", "u")
    assert (reply.text, slept.waits, len(endpoint.asked)) == ("5", [7.0, 1.0, 2.0], 4)


async def test_what_asks_for_more_patience_than_there_is_gets_a_pause(endpoint: JudgeServer) -> None:
    """A Retry-After beyond the patience ends the question at once, and nothing is asked until it is over."""
    slept = Slept()
    script(endpoint, (429, {}, {"retry-after": "600"}), says("5"))
    judge = client(endpoint, slept)
    for _ in range(2):
        with pytest.raises(ModelError):
            await judge.ask("s", "u")
    assert (slept.waits, len(endpoint.asked)) == ([], 1)
    slept.now = 601
    assert (await judge.ask("s", "u")).text == "5"


async def test_a_time_out_is_tried_again_and_charged(endpoint: JudgeServer) -> None:
    """A try that is silent for too long is given up and another one made; if all are, the estimate is charged."""
    gate = threading.Event()
    left = [True, False]

    def slow(body: dict[str, Any]) -> Any:
        if not left or left.pop(0):
            gate.wait(10)
        return says("5")

    endpoint.answer = slow
    judge = client(endpoint, Slept(), timeout_s=0.3, retries=1)
    assert (await judge.ask("s", "u")).text == "5"
    assert (len(endpoint.asked), judge.budget.tokens) == (2, 32)
    with pytest.raises(ModelError, match="APITimeoutError"):
        await judge.ask("s", "u")
    gate.set()
    assert judge.budget.tokens == 32 + judge.estimate("s", "u")[0]


async def test_reasoning_models_have_names_of_their_own(endpoint: JudgeServer) -> None:
    """An endpoint that wants max_completion_tokens and no temperature is understood, and remembered."""

    def picky(body: dict[str, Any]) -> Any:
        for name, instead in (("max_tokens", "max_completion_tokens"), ("temperature", "the default")):
            if name in body:
                return 400, {"error": {"message": f"Unsupported: '{name}'. Use {instead}."}}
        return says("5")

    endpoint.answer = picky
    judge = client(endpoint, Slept(), max_tokens=50)
    assert (await judge.ask("s", "u")).text == "5"
    before = len(endpoint.asked)
    await judge.ask("s", "u")
    assert len(endpoint.asked) == before + 1
    assert endpoint.asked[-1]["max_completion_tokens"] == 50


async def test_a_wrong_key_is_not_tried_again(endpoint: JudgeServer) -> None:
    """A 401 is the same the next time: one request, and an error that says so."""
    script(endpoint, (401, {"error": {"message": "bad key"}}))
    slept = Slept()
    with pytest.raises(ModelError, match="bad key"):
        await client(endpoint, slept, retries=3).ask("s", "u")
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    "reply", ["<html>", "[1]", {"choices": []}, {"choices": None}, {"choices": [{"index": 0}]}, {"no": "choices"}]
)
async def test_what_is_no_completion_is_an_error(endpoint: JudgeServer, reply: Any) -> None:
    """A 200 without a completion raises ModelError, never something that nobody foresaw."""
    script(endpoint, (200, reply))
    with pytest.raises(ModelError):
        await client(endpoint, Slept(), retries=0).ask("s", "u")


async def test_odd_fields_of_a_completion(endpoint: JudgeServer) -> None:
    """No usage is nothing counted, null content is empty text, a refusal is kept, NaN stays NaN for its reader."""
    endpoint.answer = lambda body: (
        200,
        {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": None, "refusal": "I won't"}}]},
    )
    judge = client(endpoint, Slept(), price=PRICE)
    reply = await judge.ask("s", "u")
    assert (reply.text, reply.refusal, reply.prompt_tokens, reply.cost_usd) == ("", "I won't", 0, None)
    assert judge.budget.tokens > 0, "what nobody counted was not free"
    endpoint.answer = lambda body: says("4", top={"4": math.nan, "5": 0.5})
    [(_, alternatives)] = (await judge.ask("s", "u")).tokens
    assert math.isnan(alternatives["4"])
    assert alternatives["5"] == pytest.approx(0.5)


async def test_what_a_reply_costs(endpoint: JudgeServer) -> None:
    """Tokens times prices, for one reply and for samples together; without a price it is unknown."""
    assert (await client(endpoint, Slept(), price=PRICE).ask("s", "u")).cost_usd == pytest.approx(0.5)
    assert (await client(endpoint, Slept()).ask("s", "u")).cost_usd is None


async def test_samples_in_as_few_requests_as_the_endpoint_allows(endpoint: JudgeServer) -> None:
    """k choices of one request where there are such; else one by one, and the refusal is remembered."""
    endpoint.answer = lambda body: says(*["3"] * body.get("n", 1))
    slept = Slept()
    judge = client(endpoint, slept, price=PRICE)
    samples = await judge.sample("s", "u", None, 4, 0.8)
    assert (samples.texts, len(endpoint.asked), samples.prompt_tokens) == (["3"] * 4, 1, 30)
    assert endpoint.asked[0]["temperature"] == 0.8
    endpoint.answer = lambda body: (400, {"error": {"message": "n"}}) if "n" in body else says("2")
    for expected in (4, 3):  # one refusal, then none
        before = len(endpoint.asked)
        assert (await judge.sample("s", "u", None, 3, 0.8)).texts == ["2"] * 3
        assert len(endpoint.asked) - before == expected
    endpoint.answer = lambda body: (400, {"error": {"message": "never"}})
    with pytest.raises(JudgeRefused):
        await judge.sample("s", "u", {"type": "object"}, 2, 0.8)


async def test_the_day_ends_before_the_budget_is_passed(endpoint: JudgeServer) -> None:
    """A question whose estimate does not fit is not asked; the error says when it goes on."""
    judge = client(endpoint, Slept(), limits=Limits(tokens_per_day=150), max_tokens=50)
    for _ in range(3):
        await judge.ask("s" * 30, "u" * 30)  # 70 estimated, 32 counted
    with pytest.raises(BudgetSpent, match="it goes on at 2026-11-02T00:00Z"):
        await judge.ask("s" * 30, "u" * 30)
    assert (len(endpoint.asked), judge.budget.tokens) == (3, 96)


async def test_requests_a_minute(endpoint: JudgeServer) -> None:
    """Beyond the burst each question waits for its turn; a wait beyond the patience is an error, unasked."""
    slept = Slept()
    judge = client(endpoint, slept, limits=Limits(requests_per_minute=6), patience_s=25)
    for _ in range(3):
        await judge.ask("s", "u")
    assert slept.waits == [pytest.approx(10), pytest.approx(10)]
    hasty = client(endpoint, slept, limits=Limits(requests_per_minute=6), patience_s=5)
    await hasty.ask("s", "u")
    with pytest.raises(ModelError, match="no room for 10 s"):
        await hasty.ask("s", "u")
    assert len(endpoint.asked) == 4


def test_a_dollar_budget_needs_a_price() -> None:
    """Without the model's price a budget in dollars could never be kept: refused at start, naming both keys."""
    settings = JudgeSettings(url="http://x/v1", model="big", usd_per_day=1.0)
    with pytest.raises(SettingsError, match=r'judges\.main\.usd_per_day: big has no price.*prices\."big"'):
        make_judge(settings, [], "tiny", "main")
    assert make_judge(settings, [], "tiny", "main", PRICE).price == PRICE
