"""Every kind of check on answers that pass it, fail it, leave it undecided or have nothing to do with it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.consumers.rules.checks import Prepared, check_hash, check_problem, run_check
from ratchet.consumers.rules.results import CheckResult, read_returned
from ratchet.schemas.checks import (
    Answer,
    Check,
    JsonSchemaCheck,
    LanguageCheck,
    LatencyCheck,
    LengthCheck,
    ReferenceCheck,
    RegexCheck,
    ToolCallsCheck,
    UncertaintyCheck,
)
from ratchet.schemas.events import Request

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASKED = Request(
    messages=[{"role": "user", "content": "hi"}], tools=[WEATHER, {"type": "custom", "custom": {"name": "code"}}]
)
SLOW = "(a|aa)+$"
FOR_EVER = "a" * 60 + "b"


def ask(check: Check, text: str = "", **more: Any) -> CheckResult | None:
    """One check of one answer."""
    return run_check(Prepared(check, check_hash(check)), Answer(**({"text": text, "request": ASKED} | more)))


def said(check: Check, text: str = "", **more: Any) -> str | None:
    """Its verdict; None where the check does not apply."""
    result = ask(check, text, **more)
    return result.verdict if result else None


def call(name: str, arguments: object) -> dict[str, Any]:
    """A tool call as OpenAI's API has it."""
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_catastrophic_pattern_abstains() -> None:
    """A pattern that takes for ever on one answer gives up there, also inside a JSON Schema; elsewhere it works."""
    check = RegexCheck(name="r", pattern=SLOW)
    assert said(check, FOR_EVER) == "abstain"
    assert said(check, "aaa") == "pass"
    schema = JsonSchemaCheck(name="s", schema={"properties": {"a": {"pattern": SLOW}}})
    assert said(schema, f'{{"a": "{FOR_EVER}"}}') == "abstain"
    assert [said(schema, text) for text in ('{"a": "aa"}', '{"a": "b"}', '{"a": 1}')] == ["pass", "fail", "pass"]
    names = JsonSchemaCheck(name="s", schema={"patternProperties": {SLOW: {}}, "additionalProperties": False})
    assert said(names, f'{{"{FOR_EVER}": 1}}') == "abstain"
    assert [said(names, text) for text in ('{"aa": 1}', '{"c": 1}')] == ["pass", "fail"]


def test_absent_patterns() -> None:
    """With ``absent`` the check passes where the pattern is not found."""
    check = RegexCheck(name="r", pattern=r"(?i)as an ai", absent=True)
    assert [said(check, text) for text in ("Sure.", "As an AI, I")] == ["pass", "fail"]


def test_a_reference_outside_the_schema_abstains_and_fetches_nothing() -> None:
    """An answer is not failed for a schema that cannot be resolved."""
    result = ask(JsonSchemaCheck(name="s", schema={"$ref": "http://127.0.0.1:9/other.json"}), "{}")
    assert result is not None
    assert (result.verdict, result.score) == ("abstain", None)
    assert "none is fetched" in result.reason


@pytest.mark.parametrize(
    ("unit", "verdicts"), [("characters", ["fail", "pass"]), ("words", ["fail", "pass"]), ("tokens", ["abstain"] * 2)]
)
def test_length_units(unit: Any, verdicts: list[str]) -> None:
    """Characters, words, and tokens as the model server counted them: not counted is not 0."""
    check = LengthCheck(name="l", unit=unit, min=2, max=4)
    assert [said(check, text) for text in ("hello", "a b")] == verdicts
    tokens = LengthCheck(name="l", unit="tokens", max=4)
    assert [said(tokens, completion_tokens=count) for count in (4, 5)] == ["pass", "fail"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Your order has been shipped and will arrive on Monday.", "pass"),
        ("Ihre Bestellung wurde versandt und kommt am Montag bei Ihnen an.", "pass"),
        ("Votre commande a été expédiée et arrivera lundi prochain.", "fail"),
        ("您的订单已经发货，预计将于下周一送达，请您耐心等待，谢谢。", "fail"),
        ("OK.", "abstain"),
        ("12345 67890 12345 67890 12345", "abstain"),
        ("Hotel Taxi Radio Piano Bravo", "abstain"),
    ],
)
def test_language(text: str, verdict: str) -> None:
    """Another language fails; what is too short, no language or could be several abstains."""
    assert said(LanguageCheck(name="l", languages=["en", "de"]), text) == verdict


def test_an_unknown_language_is_refused_with_those_that_are_known() -> None:
    """A code that the detector never answers would fail every answer."""
    assert check_problem(LanguageCheck(name="l", languages=["en"])) is None
    problem = check_problem(LanguageCheck(name="l", languages=["en", "zh-CN"])) or ""
    assert problem.startswith("check 'l': languages zh-CN; allowed: ace, af, am")


def test_uncertainty() -> None:
    """Hedging anywhere in the answer fails; a task can add phrases in its users' language."""
    check = UncertaintyCheck(name="u", phrases=["Ich weiß nicht"])
    assert said(check, "It is 42.") == "pass"
    assert said(check, "It may be 42, but I’m not  sure.") == "fail"
    assert said(check, "Das ICH WEISS nicht.") == "fail"


def test_latency() -> None:
    """Total time or time to the first token; not measured abstains, not streamed does not apply."""
    total, first = LatencyCheck(name="l", max_ms=100), LatencyCheck(name="l", max_ms=10, of="ttft")
    assert [said(total, latency_ms=ms) for ms in (100, 101, None)] == ["pass", "fail", "abstain"]
    assert [said(first, latency_ms=100, ttft_ms=ms) for ms in (10, 11, None)] == ["pass", "fail", None]
    assert said(first) == "abstain"


@pytest.mark.parametrize(
    ("calls", "verdict", "reason"),
    [
        ([call("weather", '{"city": "Bern"}')], "pass", "the tool call fits"),
        ([call("weather", {"city": "Bern"})], "pass", "fits"),
        ([call("weather", '{"city": 1}')], "fail", "weather: $.city: 1 is not of type 'string'"),
        ([call("weather", '{"city"')], "fail", "weather: arguments are not JSON"),
        ([call("weather", "[]")], "fail", "no object"),
        ([call("time", "{}")], "fail", "time: no tool of the request; offered: weather, code"),
        ([{"type": "function"}], "fail", "without a name"),
        ([{"type": "custom", "custom": {"name": "code", "input": "1 +"}}], "pass", "fits"),
        ([call("weather", '{"city": "Bern"}'), call("weather", "{}")], "fail", "'city' is a required property"),
    ],
)
def test_tool_calls(calls: list[dict[str, Any]], verdict: str, reason: str) -> None:
    """Each call names a tool of the request and its arguments fit that tool's parameters."""
    result = ask(ToolCallsCheck(name="t"), tool_calls=calls)
    assert result is not None
    assert result.verdict == verdict
    assert reason in result.reason


def test_no_tool_call_and_a_broken_schema_of_the_app() -> None:
    """Without a call there is nothing to check unless one is required; a schema that is none abstains."""
    assert said(ToolCallsCheck(name="t")) is None
    assert said(ToolCallsCheck(name="t", required=True)) == "fail"
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "nonsense"}}}]
    request = Request(messages=[], tools=tools)
    assert said(ToolCallsCheck(name="t"), tool_calls=[call("weather", "{}")], request=request) == "abstain"


def test_regular_expressions_that_come_with_a_request_are_not_compiled() -> None:
    """A tenant's pattern cannot take the consumer's memory or time; the rest of its schema still counts."""
    parameters = {
        "type": "object",
        "patternProperties": {"(((a{1000}){1000}){1000}){1000}": {"type": "null"}},
        "additionalProperties": False,
        "properties": {"pattern": {"type": "string", "pattern": "(((a{1000}){1000}){1000}){1000}"}},
        "required": ["pattern"],
    }
    tools = [{"type": "function", "function": {"name": "grep", "parameters": parameters}}]
    request = Request(messages=[], tools=tools)
    asked = [call("grep", arguments) for arguments in ('{"pattern": "x", "a": 1}', '{"pattern": 1}', "{}")]
    assert [said(ToolCallsCheck(name="t"), tool_calls=[one], request=request) for one in asked] == [
        "pass",
        "fail",
        "fail",
    ]


@pytest.mark.parametrize("depth", [400, 5_000])
def test_a_schema_that_is_nested_too_deeply_abstains(depth: int) -> None:
    """A request's own parameters never stop the consumer."""
    deep: dict[str, Any] = {}
    for _ in range(depth):
        deep = {"not": deep}
    tools = [{"type": "function", "function": {"name": "grep", "parameters": deep}}]
    request = Request.model_construct(messages=[], prompt=None, params={}, tools=tools, response_format=None)
    result = run_check(
        Prepared(ToolCallsCheck(name="t"), "0" * 16),
        Answer.model_construct(text="", request=request, tool_calls=[call("grep", "{}")]),
    )
    assert result is not None
    assert result.verdict == "abstain"


def test_a_fixed_expectation_and_a_prompt_without_one() -> None:
    """A fixed text is every prompt's; where a file has no line for the prompt there is no score at all."""
    assert said(ReferenceCheck(name="r", expect="yes"), "Yes.") == "pass"
    check = ReferenceCheck(name="r", file="refs.jsonl")
    answer = Answer(text="yes", request=ASKED)
    assert run_check(Prepared(check, "0" * 16, expected={"another": ("yes",)}), answer) is None


@pytest.mark.parametrize(
    ("value", "score", "verdict"),
    [
        (True, 1.0, "pass"),
        (False, 0.0, "fail"),
        (0.5, 0.5, "pass"),
        (0.49, 0.49, "fail"),
        (1, 1.0, "pass"),
        ([0.2, "too curt"], 0.2, "fail"),
        ((True, "kind"), 1.0, "pass"),
        (math.nan, None, "abstain"),
        (math.inf, None, "abstain"),
        (1.01, None, "abstain"),
        (-0.1, None, "abstain"),
        (10**400, None, "abstain"),
        (None, None, "abstain"),
        ("yes", None, "abstain"),
        ([0.5, 1], None, "abstain"),
        ([0.5], None, "abstain"),
        ([True, "a", "b"], None, "abstain"),
    ],
)
def test_what_a_function_may_return(value: object, score: float | None, verdict: str) -> None:
    """A bool, a number from 0 to 1, or one with a reason; anything else abstains, and never scores 0."""
    result = read_returned(value, 0.5)
    assert (result.score, result.verdict) == (score, verdict)
    assert result.reason


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
    )
)
def test_anything_returned_is_a_verdict_with_a_score_or_an_abstention_without(value: object) -> None:
    """Of all values: pass and fail have a score from 0 to 1, an abstention has none."""
    result = read_returned(value, 0.5)
    assert (result.score is None) == (result.verdict == "abstain")
    assert result.score is None or 0 <= result.score <= 1


CHECKS: list[Check] = [
    RegexCheck(name="c", pattern="a+b"),
    ReferenceCheck(name="c", expect="yes", match="fuzzy"),
    LengthCheck(name="c", unit="words", max=3),
    LanguageCheck(name="c", languages=["en"], min_chars=1),
    UncertaintyCheck(name="c"),
    LatencyCheck(name="c", max_ms=1),
    ToolCallsCheck(name="c"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@settings(max_examples=40)
@given(st.text(), st.lists(st.dictionaries(st.sampled_from(["function", "type"]), JSON), max_size=3))
def test_no_answer_makes_a_check_raise(text: str, calls: list[dict[str, Any]]) -> None:
    """Whatever a model says, each kind says the same of it twice, with a score or an abstention."""
    for check in CHECKS:
        first = ask(check, text, tool_calls=calls, latency_ms=1)
        assert first == ask(check, text, tool_calls=calls, latency_ms=1)
        assert first is None or (first.score is None) == (first.verdict == "abstain")
