"""Who hears of which transition, what they are sent, and what an answer means."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.infra.sinks.http import Answer
from ratchet.schemas.hooking import HookSettings
from ratchet.schemas.ids import unix_ms, uuid7
from ratchet.schemas.rollout_events import GateResult, Rollout
from ratchet.services.rules.rollouts.hooks import (
    concerned,
    is_news,
    may_veto,
    message,
    objection,
    question_id,
    recorded,
    what,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID, OTHER = (uuid7(int(NOW.timestamp() * 1000) + i, bytes(10)) for i in range(2))
CANDIDATE = "support@v2-0123abcd"


def table(action: str = "advance", actor: str = "controller", **more: Any) -> Rollout:
    """A routing table after a transition from shadow to 5%."""
    body = {
        "id": ID, "at": NOW, "task": "support", "rollout_id": ID, "version": 4, "status": "running", "stage": "5%",
        "stage_started_at": NOW, "salt": ID, "stable": "base", "candidate": CANDIDATE, "weight_bp": 500,
        "action": action, "actor": actor, "reason": "all 3 gates passed",
    }  # fmt: skip
    return Rollout.model_validate(body | more)


def hook(**more: Any) -> HookSettings:
    """A hook with an address."""
    return HookSettings.model_validate({"url": "https://hooks.example/x"} | more)


def test_a_hook_hears_of_its_moment_its_actions_and_its_tasks() -> None:
    """By default of both moments and every action but `prove`; before, only of what is a transition."""
    hooks = {
        "all": hook(),
        "after": hook(when="after"),
        "aborts": hook(actions=["abort"]),
        "theirs": hook(tasks=["sales"]),
        "ours": hook(tasks=["support"], when="before"),
    }
    assert set(concerned(hooks, "before", table())) == {"all", "ours"}
    assert set(concerned(hooks, "after", table())) == {"all", "after"}
    assert set(concerned(hooks, "before", table("abort"))) == {"all", "aborts", "ours"}
    assert set(concerned(hooks, "before", table("refuse"))) == set()
    assert set(concerned(hooks, "after", table("refuse"))) == {"all", "after"}
    assert set(concerned(hooks, "after", table("prove"))) == set()


@pytest.mark.parametrize("action", ["abort", "undo", "pause", "resume", "supersede"])
def test_what_sends_users_back_or_stands_still_waits_for_nobody(action: str) -> None:
    """Aborts, undoes and pauses may not be held up, whoever asked."""
    assert not may_veto(table(action))


@pytest.mark.parametrize("action", ["start", "advance", "promote"])
def test_what_a_person_asked_for_waits_for_nobody(action: str) -> None:
    """The controller's own steps forward may be held up; the same step by a person may not."""
    assert may_veto(table(action))
    assert not may_veto(table(action, actor="ann"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(200, b""), None),
        (Answer(204, b"no"), None),
        (Answer(409, b'{"reason": "release freeze until Monday"}'), "release freeze until Monday"),
        (Answer(403, b"not\nyou"), "not you"),
        (Answer(409, b""), "refused with status 409, without a reason"),
        (Answer(409, b'{"detail": 1}'), '{"detail": 1}'),
        (Answer(500, b"oops"), "answered 500 oops: without its yes nothing moves (on_error)"),
        (Answer(302, b""), "answered 302: without its yes nothing moves (on_error)"),
        ("no answer within 10 s", "no answer within 10 s: without its yes nothing moves (on_error)"),
    ],
)
def test_what_an_answer_means(answer: Answer | str, said: str | None) -> None:
    """2xx lets go, 409 and 403 veto with the body's reason, all else is what `on_error` says."""
    assert objection(hook(), answer) == said


def test_a_hook_that_fails_may_be_passed_over() -> None:
    """With `on_error = "allow"` only a real no holds anything up."""
    allowing = hook(on_error="allow")
    assert objection(allowing, "no answer within 10 s") is None
    assert objection(allowing, Answer(503, b"")) is None
    assert objection(allowing, Answer(409, b"no")) == "no"


def test_the_message_says_what_moves_and_why() -> None:
    """From where to where, who, the gates' figures, and whether an answer can hold it up."""
    gate = GateResult.model_validate(
        {"gate": "completion", "verdict": "pass", "stable": {"n": 90, "value": 0.9}, "margin": 0.02,
         "candidate": {"n": 80, "value": 0.9}, "difference": 0.0, "low": -0.01, "high": 0.01, "reason": "fine"}
    )  # fmt: skip
    before = table(stage="shadow", weight_bp=0, mirror_bp=1000, version=3)
    body = json.loads(message("before", OTHER, before, table(gates=[gate])))
    data = body["data"]
    assert (body["type"], body["timestamp"], data["id"]) == ("rollout.before", "2026-11-01T12:00:00Z", OTHER)
    assert (data["task"], data["action"], data["who"], data["reason"]) == (
        "support", "advance", "controller", "all 3 gates passed",
    )  # fmt: skip
    assert (data["from"]["stage"], data["from"]["mirror_bp"]) == ("shadow", 1000)
    assert (data["to"]["stage"], data["to"]["weight_bp"]) == ("5%", 500)
    assert (data["stable"], data["candidate"], data["may_veto"]) == ("base", CANDIDATE, True)
    assert data["gates"] == [gate.model_dump(mode="json")]
    after = json.loads(message("after", ID, None, table()))["data"]
    assert after["from"] is None
    assert "may_veto" not in after


def test_a_question_keeps_its_id() -> None:
    """The same for the same transition though its table is made anew at each look, another for another one."""
    state = table(stage="shadow", version=3)
    first = question_id("a", state, table())
    again = question_id("a", state.model_copy(update={"version": 9, "action": "refuse"}), table(id=OTHER))
    assert first == again
    others = [question_id("b", state, table()), question_id("a", state, table("promote"))]
    refused = state.model_copy(update={"action": "refuse", "salt": ""})
    assert question_id("a", refused, table("start")) == question_id("a", None, table("start"))
    others += [
        question_id("a", state.model_copy(update={"rollout_id": OTHER}), table()),
        question_id("a", None, table()),
    ]
    assert len({first, *others}) == 5
    assert unix_ms(first) == unix_ms(ID)


def test_a_veto_on_record_is_known_again() -> None:
    """By the table in force, so that another controller does not record it once more."""
    refusal = table("refuse", actor="hook a", stage="shadow", reason=f"{what(table())}: freeze")
    assert recorded("a", refusal, table())
    assert not recorded("b", refusal, table())
    assert not recorded("a", refusal, table(stage="20%"))
    assert not recorded("a", None, table())
    assert [what(table(action)) for action in ("start", "advance", "promote")] == [
        f"start of {CANDIDATE}", f"advance of {CANDIDATE} to '5%'", f"promotion of {CANDIDATE}",
    ]  # fmt: skip


def test_what_is_old_is_no_news() -> None:
    """A hook that is new, or was away for longer than a day, hears of nothing older."""
    assert is_news(table(), NOW + timedelta(hours=24))
    assert not is_news(table(), NOW + timedelta(hours=24, seconds=1))


@pytest.mark.parametrize(
    "wrong",
    [{"url": "ftp://x"}, {"secret": "hunter2"}, {"actions": []}, {"actions": ["promot"]}, {"on_error": "maybe"},
     {"retry_s": 0}, {"more": 1}],
)  # fmt: skip
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    """Each field says what it allows."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        hook(**wrong)
