from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.consumers.check_set import CheckSet
from ratchet.consumers.checks import Checks, check_scores
from ratchet.consumers.rules.checks import Prepared, check_hash, check_problem, run_check
from ratchet.consumers.rules.results import CheckResult
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.checks import (
    Answer,
    Check,
    FunctionCheck,
    JsonSchemaCheck,
    LanguageCheck,
    LengthCheck,
    ReferenceCheck,
    RefusalCheck,
    RegexCheck,
    RequiredFieldsCheck,
)
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.events import Inference, Request, Response, Score, Shadow
from ratchet.schemas.ids import derived_id
from ratchet.schemas.policies import TaskPolicy

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
TICKET = {
    "type": "object",
    "properties": {"order": {"type": "string"}, "urgency": {"enum": ["low", "high"]}},
    "required": ["order", "urgency"],
    "additionalProperties": False,
}
SCHEMA = JsonSchemaCheck(name="ticket", schema=TICKET)
ASKED = Request(messages=[{"role": "user", "content": "hi"}])


def run(check: Check, content: str | None) -> CheckResult:
    """One check of one answer's text."""
    result = run_check(Prepared(check, check_hash(check)), Answer(text=content or "", request=ASKED))
    assert result is not None
    return result


def inference(content: str | None, status: str = "ok", **more: Any) -> Inference:
    """A production answer."""
    return Inference(
        id=derived_id(1_700_000_000_000, "i", str(content), status),
        at=AT,
        task="support",
        adapter="base",
        base_model="tiny",
        request=Request(messages=[{"role": "user", "content": "hi"}]),
        response=Response(content=content) if status == "ok" else None,
        status=status,
        latency_ms=1,
        source="gateway",
        stage="stable",
        **more,
    )


@pytest.mark.parametrize(
    ("content", "score", "reason"),
    [
        ('{"order": "1", "urgency": "low"}', 1, "fits"),
        ('{"order": "1", "urgency": "soon"}', 0, "urgency"),
        ('{"order": "1"}', 0, "required"),
        ('```json\n{"order": "1", "urgency": "low"}\n```', 0, "not JSON"),
        ("{" * 5000, 0, "not JSON"),
        ('{"order": NaN, "urgency": "low"}', 0, "not JSON"),
        (None, 0, "not JSON"),
    ],
)
def test_json_schema(content: str | None, score: int, reason: str) -> None:
    """The answer must be JSON, alone, that fits the schema; the reason says what does not."""
    result = run(SCHEMA, content)
    assert result.score == score
    assert reason in result.reason


def test_required_fields() -> None:
    """Named fields must be there and not empty; a list is no object."""
    check = RequiredFieldsCheck(name="fields", fields=["a", "b"])
    assert run(check, '{"a": 0, "b": false, "c": 1}').score == 1
    assert run(check, '{"a": 1, "b": ""}').reason == "missing or empty: b"
    assert run(check, "[1]").score == 0


def test_regex_length_refusal() -> None:
    """Pattern search, a length window that includes its ends, and refusals at the start of an answer."""
    assert run(RegexCheck(name="r", pattern=r"\bORD-\d+"), "see ORD-12").score == 1
    assert run(RegexCheck(name="r", pattern=r"^\d+$"), "see 12").score == 0
    window = LengthCheck(name="l", min=2, max=3)
    assert [run(window, "x" * n).score for n in range(1, 5)] == [0, 1, 1, 0]
    refusal = RefusalCheck(name="p")
    assert run(refusal, "I’m sorry, but I can’t help with that.").score == 0
    assert run(refusal, "Sure. " * 100 + "They said: I cannot help.").score == 1


@given(
    st.text(),
    st.sampled_from(
        [
            SCHEMA,
            RequiredFieldsCheck(name="c", fields=["a"]),
            RegexCheck(name="c", pattern="a+b"),
            LengthCheck(name="c", max=10),
            RefusalCheck(name="c"),
        ]
    ),
)
def test_any_text_gets_a_verdict(text: str, check: Check) -> None:
    """No answer makes a check raise: it passes or fails, the same way twice."""
    first = run(check, text)
    assert first.score in (0.0, 1.0)
    assert first == run(check, text)


@given(st.dictionaries(st.sampled_from(["order", "urgency", "x"]), st.sampled_from(["low", "high", ""])))
def test_schema_agrees_with_its_meaning(value: dict[str, str]) -> None:
    """The schema check passes exactly the objects that the schema describes."""
    fits = set(value) == {"order", "urgency"} and value["urgency"] in ("low", "high")
    assert run(SCHEMA, json.dumps(value)).score == float(fits)


def test_hash_changes_with_the_question() -> None:
    """A check's hash is 16 hex digits, stable, and another one for another question."""
    assert check_hash(SCHEMA) == check_hash(SCHEMA.model_copy())
    assert len(check_hash(SCHEMA)) == 16
    assert check_hash(LengthCheck(name="l", max=3)) != check_hash(LengthCheck(name="l", max=4))


def test_broken_checks_are_refused_before_traffic() -> None:
    """A schema or a pattern that can never run is refused with its task and name."""
    broken = JsonSchemaCheck(name="bad", schema={"type": "nonsense"})
    assert "no JSON Schema" in (check_problem(broken) or "")
    assert check_problem(SCHEMA) is None
    pattern = RegexCheck(name="re", pattern="(")
    with pytest.raises(SettingsError, match=r"tasks\.support\.checks: check 're'"):
        Checks({"support": TaskPolicy(checks=[pattern])}, MemoryPublisher())


async def test_scores_of_an_answer() -> None:
    """One score a check, under the answer's time, adapter and rollout; redelivery gives the same ids."""
    policy = TaskPolicy(checks=[SCHEMA, LengthCheck(name="short", max=5)])
    publisher = MemoryPublisher()
    handler = Checks({"support": policy}, publisher)
    rollout = derived_id(1, "rollout")
    event = inference("nope, too long", rollout_id=rollout)
    await handler.handle(event)
    await handler.handle(event)
    scores = [score for score in publisher.events if isinstance(score, Score)]
    assert [(s.rubric, s.score, s.verdict) for s in scores[:2]] == [("ticket", 0, "fail"), ("short", 0, "fail")]
    assert scores[:2] == scores[2:]
    assert {(s.at, s.rollout_id, s.target_id, s.target) for s in scores} == {(AT, rollout, event.id, "inference")}


async def test_failed_calls_and_other_tasks_get_no_scores() -> None:
    """A call that failed has no answer to check, and a task without a policy has no checks."""
    publisher = MemoryPublisher()
    handler = Checks({"support": TaskPolicy(checks=[SCHEMA])}, publisher)
    for status in ("error", "timeout", "cancelled"):
        await handler.handle(inference("x", status))
    await handler.handle(inference("x").model_copy(update={"task": "other"}))
    assert publisher.events == []


def test_shadow_answers_are_checked_as_shadows() -> None:
    """A shadow answer's score says so and carries the rollout."""
    base = inference('{"order": "1", "urgency": "low"}').model_dump(by_alias=True)
    rollout = derived_id(1, "rollout")
    ids = {"schema": "shadow.v1", "stage": "shadow", "rollout_id": rollout, "inference_id": base["id"]}
    shadow = Shadow.model_validate(base | ids | {"id": derived_id(2, "shadow")})
    (score,) = check_scores(shadow, CheckSet({"support": [SCHEMA]}))
    assert (score.target, score.target_id, score.rollout_id, score.score) == ("shadow", shadow.id, rollout, 1.0)


OWN = """
import time
def half(answer): return 0.5, "half " + answer.tags["case"]
def slow(answer): time.sleep(3)
def low(answer): return 0.4
"""


def own(tmp_path: Path, *names: str, timeout_s: float = 5) -> TaskPolicy:
    """A task whose checks are functions of a module beside its ratchet.toml."""
    (tmp_path / "own_checks.py").write_text(OWN)
    checks = [FunctionCheck(name=name, function=f"own_checks:{name}", timeout_s=timeout_s) for name in names]
    return TaskPolicy(checks=[*checks, LanguageCheck(name="english", languages=["en"])])


async def test_graded_and_abstained_scores(tmp_path: Path) -> None:
    """A function's score is stored with its verdict at the threshold; an abstention has a reason and no score."""
    publisher = MemoryPublisher()
    handler = Checks({"support": own(tmp_path, "half", "low")}, publisher, tmp_path)
    await handler.handle(inference("OK.", tags={"case": "a"}))
    await handler.handle(inference("OK.", tags={}))
    handler.close()
    scores = [(s.rubric, s.score, s.verdict) for s in publisher.events if isinstance(s, Score)]
    assert scores == [
        ("half", 0.5, "pass"),
        ("low", 0.4, "fail"),
        ("english", None, "abstain"),
        ("half", None, "abstain"),
        ("low", 0.4, "fail"),
        ("english", None, "abstain"),
    ]
    reasons = [s.rationale for s in publisher.events if isinstance(s, Score) and s.rubric == "half"]
    assert reasons == ["half a", "own_checks:half: raised KeyError: 'case'"]


async def test_a_function_that_hangs_holds_up_nobody_else(tmp_path: Path) -> None:
    """While it is waited for, the other consumers of the process go on; then the check abstains."""
    publisher = MemoryPublisher()
    handler = Checks({"support": own(tmp_path, "slow", timeout_s=0.3)}, publisher, tmp_path)
    checking = asyncio.create_task(handler.handle(inference("OK.")))
    turns = 0
    while not checking.done():
        await asyncio.sleep(0.01)
        turns += 1
    handler.close()
    assert turns > 3
    first = publisher.events[0]
    assert isinstance(first, Score)
    assert (first.verdict, first.score, first.rationale) == ("abstain", None, "own_checks:slow: took over 0.3 s")


async def test_a_check_that_does_not_apply_gives_no_row(tmp_path: Path) -> None:
    """A prompt without a reference has no score: neither passed nor failed."""
    (tmp_path / "refs.jsonl").write_text('{"prompt": "another question", "expect": "x"}')
    check = ReferenceCheck(name="known", file="refs.jsonl")
    publisher = MemoryPublisher()
    await Checks({"support": TaskPolicy(checks=[check])}, publisher, tmp_path).handle(inference("x"))
    assert publisher.events == []


def test_files_and_functions_are_part_of_the_hash(tmp_path: Path) -> None:
    """Another content of the file, another source of the function: rows of their own."""

    def hashes(answer: str, source: str) -> list[str]:
        (tmp_path / "refs.jsonl").write_text(f'{{"prompt": "q", "expect": "{answer}"}}')
        (tmp_path / "own_hash.py").write_text(f"def f(answer): return {source}")
        reference = ReferenceCheck(name="known", file="refs.jsonl")
        with CheckSet({"t": [reference, FunctionCheck(name="f", function="own_hash:f")]}, tmp_path) as checks:
            return [one.hash for one in checks.of("t")]

    first, other = hashes("a", "True"), hashes("b", "False")
    assert first[0] != other[0]
    assert first[1] != other[1]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (ReferenceCheck(name="r", file="none.jsonl"), r"tasks\.t\.checks: check 'r': .*none\.jsonl"),
        (ReferenceCheck(name="r", file="bad.jsonl"), r"bad\.jsonl: line 1: no 'expect'"),
        (FunctionCheck(name="f", function="nowhere:f"), r"tasks\.t\.checks: check 'f': nowhere:f: nowhere cannot be"),
        (LanguageCheck(name="l", languages=["english"]), r"check 'l': languages english; allowed: ace"),
    ],
)
def test_what_cannot_run_is_refused_at_the_start(check: Check, says: str, tmp_path: Path) -> None:
    """One sentence that names the task, the check and what is wrong."""
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x"}')
    with pytest.raises(SettingsError, match=says):
        CheckSet({"t": [check]}, tmp_path)
