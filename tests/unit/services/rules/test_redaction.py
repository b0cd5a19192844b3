"""Redaction: what is found and what must stay, one placeholder a value, JSON stays JSON, work stays linear."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ratchet.schemas.policies import RedactionPolicy, TaskPolicy
from ratchet.services.rules.detectors import DETECTORS, iban_holds, luhn
from ratchet.services.rules.redaction import PLACEHOLDER, Redactor


def redactor(salt: str = "salt", task: str = "support", **policy: Any) -> Redactor:
    """A redactor of the default policy, or of another."""
    return Redactor(RedactionPolicy(**policy), salt=salt, task=task)


ALL = redactor()

FOUND = {
    "email": [
        "ann@example.com",
        "Ann.Lee+shop@mail.example.co.uk",
        "o'brien@example.ie",
        "jürgen@müller.example",
        "x_1%y@sub-domain.example.org",
        "ann@example.com, thanks",
    ],
    "phone": [
        "+49 30 1234567",
        "+49 (0)30 / 123-4567",
        "+14155552671",
        "+1 (415) 555-2671",
        "+44 20 7946 0958",
        "0049 30 1234567",
        "030 1234567",
        "(030) 1234567",
        "0171/1234567",
        "020 7946 0958",
        "01 23 45 67 89",
        "01.23.45.67.89",
        "044 668 18 00",
        "(02) 9374 4000",
        "(415) 555-2671",
        "415-555-2671",
        "415.555.2671",
        "1-415-555-2671",
        "my phone number is 01711234567",
        "Tel.: 1234567",
        "call me at 9876543210",
        '{"phone": "01711234567"}',
        "+49\u00a030\u00a01234567",
    ],
    "card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "3782 822463 10005",
        "5555555555554444",
        "6011 1111 1111 1117",
        "4222222222222",
        "order 1234 4111 1111 1111 1111 12/27",
        "5234 4111 1111 1111 1111",
        '{"card": 4111111111111111}',
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "de89 3704 0044 0532 0130 00",
        "GB29 NWBK 6016 1331 9268 19",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NO93 8601 1117 947",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "my IBAN is DE89370400440532013000.",
    ],
    "secret": [
        "sk-abcdefghijklmnop1234",
        "sk-proj-abc_DEF-1234567890abcdef",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "rk_3f9Kq0aZxL8mN2bV7cT5",
        "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
        "github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz",
        "glpat-abcdefghij0123456789",
        "AKIAIOSFODNN7EXAMPLE",
        "xoxb-123456789012-abcdefghijkl",
        "hf_abcdefghijklmnopqrstuvwxyz",
        "Authorization: Bearer abcdef.ghijkl0123456789==",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/IBAAKCAQEA\nabcd==\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA",
    ],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_each_kind_is_found(kind: str, text: str) -> None:
    """One value of its kind is found and nothing else, and nothing is left to find."""
    redacted, counts = ALL.redact(text)
    assert dict(counts) == {kind: 1}, redacted
    assert f"[{kind.upper()}_" in redacted
    assert ALL.redact(redacted) == (redacted, {})


@pytest.mark.parametrize(
    "text",
    [
        "order 4711-2231 and order 20240115-0007",
        "order number 123456789, again: 1234567890123456",
        "ticket #0012345678",
        "on 2026-11-24 at 10:30, or 24.11.2026 18:00, or 01/02/2026 10:30, or 01.02.26 10:30",
        "2026-11-24T21:28:15.123456Z",
        "v1.2.3, Python 3.11.7, 10.0.0.1, 192.168.100.200",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "01930000-0000-7000-8000-000000000000",
        "12345678-1234-4123-8123-123456789012",
        "EUR 1,234,567.89 or 1.234.567,89, in all 12 345 678",
        "$0.99 and 0,99 and 0.1234567890",
        "1700000000000 1700000000000000 1764019695123456789",
        "4111111111111112",
        "DE88370400440532013000",
        "XX89370400440532013000",
        "react@18.2.0, @team, a @ b, user@host, C++ 20",
        "risk-assessment-of-something, task-force-number-12345678, sk-learn-based-classifier",
        "the bearer internationalization of responsibilities",
        "phone case 12345678, mobile order 4711-2231",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "https://example.com/a-long-path/of_many_words?page=12&sort=asc",
        '{"customer": "Anna Keller", "product": "desk lamp", "order": "4711-2231", "urgency": "high"}',
        '{"order":"8843-0917","total":1249.90,"at":"2026-11-24","lines":[{"sku":"AB-0012345","n":2}]}',
        "+1 for this, +20%",
        "",
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    """Order numbers, dates, versions, ids, prices, failed checksums and words like keys are left as they are."""
    assert ALL.redact(text) == (text, {})


def test_one_value_has_one_placeholder_in_every_spelling_and_place() -> None:
    """Case, spaces and prefixes do not count; prompt, answer and a later correction agree; other values differ."""
    for spellings in (
        ["ann@example.com", "Ann@Example.COM"],
        ["+49 30 1234567", "0049-30-1234567", "+49 (0)30 1234567"],
        ["DE89 3704 0044 0532 0130 00", "de89370400440532013000"],
        ["4111 1111 1111 1111", "4111111111111111"],
    ):
        assert len({ALL.redact(spelling)[0] for spelling in spellings}) == 1
    (both, counts) = ALL.redact("from ann@example.com to bob@example.com")
    first, second = PLACEHOLDER.findall(both)
    assert first != second
    assert counts == {"email": 2}
    event, _ = ALL.redact_json({"messages": [{"content": "I am ann@example.com"}], "content": "Dear ann@example.com"})
    correction, _ = redactor().redact("Hello ann@example.com")
    assert event == {"messages": [{"content": f"I am {first}"}], "content": f"Dear {first}"}
    assert correction == f"Hello {first}"


def test_the_hash_is_keyed_by_installation_and_task() -> None:
    """Another salt or another task gives other placeholders, so events do not compare across them."""
    text = "ann@example.com bob@example.com carl@example.com"
    texts = {one.redact(text)[0] for one in (ALL, redactor(salt="other"), redactor(task="other"))}
    assert len(texts) == 3


def test_a_json_value_is_redacted_wherever_it_has_text() -> None:
    """Content parts, tool calls' arguments, keys and lists are walked; numbers, flags and nulls stay."""
    arguments = '{"to": "ann@example.com", "card": 4111111111111111}'
    value = {
        "content": [{"type": "text", "text": "ann@example.com"}, {"type": "image_url", "image_url": {"url": "x"}}],
        "tool_calls": [
            {"function": {"name": "mail", "arguments": '{"to": "ann@example.com", "card": 4111111111111111}'}}
        ],
        "ann@example.com": [None, True, 0.5, 4111111111111111],
    }
    redacted, counts = ALL.redact_json(value)
    assert counts == {"email": 3, "card": 1}
    assert "ann@" not in json.dumps(redacted)
    arguments = json.loads(redacted["tool_calls"][0]["function"]["arguments"])
    assert PLACEHOLDER.fullmatch(arguments["to"])
    assert PLACEHOLDER.fullmatch(arguments["card"])
    assert [None, True, 0.5, 4111111111111111] in redacted.values()
    clean = {"messages": [{"role": "user", "content": "Hello"}]}
    assert ALL.redact_json(clean)[0] is clean


@pytest.mark.parametrize(
    ("ticket", "shown"),
    [
        ('{"mail":"ann@example.com","order":"4711-2231"}', '{"mail":"[EMAIL_'),
        ('{ "n": "a\\nann@example.com" }', '{ "n": "a\\n[EMAIL_'),
        ('{"phone": "01711234567", "n": "a\\nb"}', '{"phone": "[PHONE_'),
        ('{"n": "\\u0061nn@example.com"}', '{"n": "[EMAIL_'),
        ('{"n": 4111111111111111, "o": 7}', '{"n": "[CARD_'),
        ('{"phone" : 1711234567}', '{"phone" : "[PHONE_'),
        ('{"n":4111111111111111}', '{"n":"[CARD_'),
        ("[4111111111111111.0]", '["[CARD_'),
        ("[4111111111111111]", '["[CARD_'),
        ('[{"n": "\\ud800 4111 1111 1111 1111"}]', '[{"n": "\\ud800 [CARD_'),
    ],
)
def test_a_json_text_stays_json(ticket: str, shown: str) -> None:
    """A ticket with a value in it parses after redaction, also where a number or an escape is in the way."""
    redacted, counts = ALL.redact(ticket)
    assert sum(counts.values()) == 1
    assert json.loads(redacted).__class__ is json.loads(ticket).__class__
    assert redacted.startswith(shown)
    redacted.encode()


def test_kinds_can_be_chosen_and_patterns_added() -> None:
    """``kinds`` limits the built-in ones, ``[]`` ends them, and a pattern of one's own has its own placeholder."""
    text = "ann@example.com, 4111111111111111, C-123456"
    assert redactor(kinds=["card"]).redact(text)[1] == {"card": 1}
    assert redactor(kinds=[]).redact(text) == (text, {})
    redacted, counts = redactor(kinds=[], patterns={"customer_no": r"\bC-[0-9]{6}\b"}).redact(text)
    assert counts == {"customer_no": 1}
    assert re.fullmatch(r"ann@example\.com, 4111111111111111, \[CUSTOMER_NO_[a-z]{3}\]", redacted)
    greedy = redactor(patterns={"word": "[A-Za-z]+"})
    once, _ = greedy.redact("write to ann@example.com")
    assert greedy.redact(once) == (once, {})


def test_json_nested_too_deeply_to_take_apart_is_redacted_all_the_same() -> None:
    """Where both cannot be had, the value goes."""
    redacted, counts = ALL.redact("[" * 900 + '"\\bann@example.com", 4111111111111111' + "]" * 900)
    assert "ann@" not in redacted
    assert sum(counts.values()) == 2


def test_a_number_in_json_within_prose_becomes_a_text() -> None:
    """Fenced JSON stays JSON where a card was a number in it."""
    redacted, _ = ALL.redact('Here:\n```json\n{"card": 4111111111111111}\n```')
    assert PLACEHOLDER.fullmatch(json.loads(redacted.split("```")[1].removeprefix("json"))["card"])


def test_what_is_the_desks_own_is_kept() -> None:
    """Values under ``keep`` stay, however they are written; others of their kind go."""
    desk = redactor(keep=["help@desk.example", "+49 30 1234567"])
    text = "Help@desk.example, 0049-30-1234567, 4711-2231"
    assert desk.redact(text) == (text, {})
    assert desk.redact(f"{text}, ann@example.com")[1] == {"email": 1}


@pytest.mark.parametrize(
    ("redaction", "where", "why"),
    [
        ({"patterns": {"x": "("}}, "redaction.patterns.x", "no regular expression"),
        ({"patterns": {"x": "a*"}}, "redaction.patterns.x", "matches the empty text"),
        ({"patterns": {"x": r"\b"}}, "redaction.patterns.x", "matches the empty text"),
        ({"patterns": {"x": "(a+)+b"}}, "redaction.patterns.x", "repeat inside a repeat"),
        ({"patterns": {"X!": "a"}}, "redaction.patterns.X!", "match pattern"),
        ({"patterns": {"email": "a"}}, "redaction.patterns", "email: a built-in kind"),
        ({"kinds": ["mail"]}, "redaction.kinds.0", "'email'"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(redaction: dict[str, Any], where: str, why: str) -> None:
    """The field, with the pattern's name in it, and the reason are named at load."""
    with pytest.raises(ValidationError) as caught:
        TaskPolicy.model_validate({"redaction": redaction})
    (problem,) = caught.value.errors()
    assert ".".join(map(str, problem["loc"])).startswith(where)
    assert why in problem["msg"]


def test_redaction_is_on_unless_it_is_switched_off() -> None:
    """A task that says nothing has every built-in kind."""
    assert set(TaskPolicy().redaction.kinds) == {detector.kind for detector in DETECTORS}


PLANTED = st.sampled_from([text for texts in FOUND.values() for text in texts])
TEXTS = st.lists(st.one_of(st.text(max_size=30), PLANTED, st.sampled_from(list('"\\{}[]:,@+-. 0'))), max_size=8).map(
    "".join
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


@given(TEXTS)
def test_redacting_twice_changes_nothing(text: str) -> None:
    """What is redacted has nothing left to find, whatever the text."""
    redacted, counts = ALL.redact(text)
    assert ALL.redact(redacted) == (redacted, {})
    assert bool(counts) == (redacted != text)


@given(VALUES)
def test_json_stays_json_and_the_shape_stays(value: Any) -> None:
    """Any JSON value, walked as a value or written in a text, is JSON afterwards, with nothing left to find."""
    redacted, _ = ALL.redact_json(value)
    json.dumps(redacted)
    if isinstance(value, dict | list):
        for escape in (True, False):
            text, _ = ALL.redact(json.dumps(value, ensure_ascii=escape))
            assert isinstance(json.loads(text), type(value))


CARDS = (
    st.from_regex(r"[3-6][0-9]{11,17}", fullmatch=True)
    .map(lambda head: next(head + last for last in "0123456789" if luhn(head + last)))
    .filter(lambda card: 13 <= len(card) <= 19)
)
IBANS = st.from_regex(r"DE[0-9]{18}", fullmatch=True).map(
    lambda body: next(f"DE{check:02}{body[2:]}" for check in range(2, 99) if iban_holds(f"DE{check:02}{body[2:]}"))
)
EMAILS = st.from_regex(r"[a-z][a-z0-9.]{0,10}[a-z]@[a-z]{2,8}\.(com|org|de)", fullmatch=True)
KEYS = st.from_regex(r"(ghp_|hf_|rk_)[A-Za-z0-9]{24,40}", fullmatch=True)


@given(st.one_of(CARDS, IBANS, EMAILS, KEYS), st.text(max_size=40), st.text(max_size=40))
def test_a_planted_value_never_comes_out(value: str, before: str, after: str) -> None:
    """A card, an IBAN, an address or a key between any two texts is gone."""
    redacted, counts = ALL.redact(f"{before} {value} {after}")
    assert value not in redacted
    assert counts


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.kind)
@pytest.mark.parametrize(
    "unit",
    [
        *("a", "0", "4", "1 ", "0 ", "4 ", "4444 ", "+1 ", "+49301234567", "0-", "(0", "415-555-"),
        *("a@", "@a.", "a.", "a'", "a@b.cc2", "x@a-", "sk-", "sk-a", "eyJaaaaaaaa.", "-----BEGIN PRIVATE KEY-----"),
        *("DE89 ", "DE89", "Bearer a", "Bearer ", "phone is ", "\\n", "[EMAIL_bcd]", "[A_"),
    ],
)
def test_work_grows_with_the_text_and_no_faster(detector: Any, unit: str) -> None:
    """A hundred kilobytes of what a pattern likes least are done with; quadratic work would take minutes."""
    for text in (unit * (100_000 // len(unit)), unit * (100_000 // len(unit)) + "!"):
        for _ in detector.spans(text):
            pass


def test_a_text_full_of_values_takes_linear_work_too() -> None:
    """A hundred kilobytes of addresses that touch, and as much that only begins as JSON, are done with."""
    for unit in ("ann@b.cc2", "+49301234567", "[[", '{"a": "\\n', "4111111111111111,"):
        ALL.redact(unit * (100_000 // len(unit)))
