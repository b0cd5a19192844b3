"""What each sink sends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from ratchet.infra.sinks import alertmanager, slack, webhook
from ratchet.infra.sinks.http import judged, plain
from ratchet.infra.sinks.notice import Notice
from ratchet.schemas.alerting import SinkSettings, signing_key
from ratchet.schemas.ids import derived_id
from ratchet.schemas.monitoring_events import Alert

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
AM = SinkSettings(kind="alertmanager", url=SecretStr("http://am:9093"), link="https://dash.example/x")
SLACK = SinkSettings(kind="slack", url=SecretStr("https://hooks.example/T/B/x"))
HOOK = SinkSettings(kind="webhook", url=SecretStr("https://u:pw@hook.example/a"), secret=SecretStr(SECRET))


def notice(reason: str = "raised", told: str = "", **more: object) -> Notice:
    """A notice of a whole alert."""
    fields: dict[str, object] = {
        "id": derived_id(1, "a"), "at": NOW, "task": "support", "adapter": "support@v3-1a2b3c4d", "kind": "drift",
        "key": "support:length", "severity": "warning", "title": "answers got longer",
        "summary": "mean 40 → 90 tokens (n 2,000 and 500)", "action": "look", "runbook": "https://runbooks.example/d",
        "since": NOW - timedelta(hours=3), "false_alarms_per_year": 0.52, "source": "drift",
        "evidence": {"top": [{"label": "80–120", "before": 0.02, "now": 0.4}], "inferences": ["i1", "i2"]},
    }  # fmt: skip
    alert = Alert.model_validate(fields | more)
    return Notice(alert, reason, alert.since or NOW, told)  # type: ignore[arg-type]


def test_alertmanager_has_labels_that_stay_and_annotations_that_tell() -> None:
    """Labels name the alert; annotations have figures, since, top bins, examples, false alarms a year, the runbook."""
    [sent] = alertmanager.body(notice(), AM, NOW)
    assert sent["labels"] == {
        "alertname": "RatchetDrift", "severity": "warning", "task": "support", "adapter": "support@v3-1a2b3c4d",
        "key": "support:length", "alert_id": derived_id(1, "a"), "source": "drift",
    }  # fmt: skip
    told = sent["annotations"]
    assert told["summary"] == "answers got longer"
    assert (told["since"], told["top"]) == ("2026-11-01T09:00:00Z", "80–120 2.0% → 40.0%")
    assert (told["examples"], told["false_alarms_per_year"]) == ("i1, i2", "0.52")
    assert told["runbook_url"] == "https://runbooks.example/d"
    assert sent["startsAt"] == "2026-11-01T09:00:00+00:00"
    assert sent["endsAt"] == "2026-11-01T12:05:00+00:00"
    assert sent["generatorURL"] == "https://dash.example/x"


def test_alertmanager_ends_the_former_severity_and_what_is_resolved() -> None:
    """A new severity is a new alert there, so the old one ends in the same request; a resolved alert has ended."""
    old, new = alertmanager.body(notice("worse", told="warning", severity="critical"), AM, NOW)
    assert (old["labels"]["severity"], old["endsAt"]) == ("warning", NOW.isoformat())
    assert new["labels"]["severity"] == "critical"
    [ended] = alertmanager.body(notice("resolved", told="warning", state="resolved"), AM, NOW)
    assert ended["endsAt"] == NOW.isoformat()


def test_slack_says_it_in_blocks_and_in_plain_text() -> None:
    """Header, what moved, what to do, the facts, the alert's id; no length over Slack's limits."""
    sent = slack.body(notice(title="t" * 256, summary="<!channel> & " * 4000), SLACK)
    assert sent["text"].startswith("[WARNING] ttt")
    header, summary, action, facts, foot = sent["blocks"]
    assert len(header["text"]["text"]) == slack.HEADER
    assert "<" not in json.dumps(sent["blocks"][1:])
    assert len(summary["text"]["text"]) <= slack.SECTION
    assert action["text"]["text"] == "What to do: look"
    assert [field["text"].split(":")[0] for field in facts["fields"]] == [
        "Task", "Adapter", "Since", "What moved most", "Examples", "Expected false alarms a year", "Runbook",
    ]  # fmt: skip
    assert derived_id(1, "a") in foot["elements"][0]["text"]


@given(st.text(alphabet="&<>a", max_size=80), st.integers(2, 60))
def test_escaping_stays_within_the_limit_and_is_whole(text: str, most: int) -> None:
    """Nothing that Slack reads as control is left, no escape is cut, and the limit holds."""
    done = slack.escape(text, most)
    assert len(done) <= most
    assert "<" not in done
    assert ">" not in done
    rest = done.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
    assert "&" not in rest
    if len(done) < most // 2:
        assert done == text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") or "…" in done


def test_a_webhook_is_signed_as_the_specification_says() -> None:
    """Id, time and body are signed; a later try has its own time and the same id; the body is type, time and data."""
    said = notice()
    raw = webhook.body(said, HOOK)
    first, later = (webhook.headers(said, raw, HOOK, at) for at in (NOW, NOW + timedelta(minutes=1)))
    assert first["webhook-id"] == later["webhook-id"] == said.id
    assert int(later["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 60
    signed = f"{said.id}.{first['webhook-timestamp']}.".encode() + raw
    expected = base64.b64encode(hmac.new(bytes(range(32)), signed, hashlib.sha256).digest()).decode()
    assert first["webhook-signature"] == f"v1,{expected}"
    assert later["webhook-signature"] != first["webhook-signature"]
    sent = json.loads(raw)
    assert (sent["type"], sent["timestamp"]) == ("alert.raised", "2026-11-01T12:00:00Z")
    assert sent["data"]["schema"] == "alert.v1"


def test_the_signature_agrees_with_the_published_example() -> None:
    """The scheme's example: its secret, id, time and body give its signature."""
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert digest == "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_webhook_of_huge_evidence_is_bounded() -> None:
    """Evidence that is too large is left out and the message says so."""
    raw = webhook.body(notice(evidence={"x": "y" * 200_000}, summary="s" * 200_000), HOOK)
    assert len(raw) <= webhook.MOST_BYTES
    assert "left_out" in json.loads(raw)["data"]["evidence"]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, "taken"), (204, "taken"), (301, "refused"), (307, "refused"), (400, "refused"), (401, "refused"),
     (404, "refused"), (408, "later"), (410, "refused"), (425, "later"), (429, "later"), (500, "later"),
     (503, "later")],
)  # fmt: skip
def test_what_a_status_means(status: int, verdict: str) -> None:
    """2xx took it, 408, 425, 429 and 5xx will, all else never; redirects are not followed."""
    assert judged(status, "", None, NOW).verdict == verdict


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [(b"7", 7.0), (b"Sun, 01 Nov 2026 12:01:00 GMT", 60.0), (b"Sun, 01 Nov 2026 11:00:00 GMT", 0.0),
     (b"999999999999", 3600.0), (b"soon", None), (b"-5", None), (b"\xff", None)],
)  # fmt: skip
def test_retry_after(text: bytes, wait_s: float | None) -> None:
    """Seconds or a date, at most an hour; nonsense is no wish."""
    assert judged(429, "", text, NOW).wait_s == wait_s


def test_an_answer_is_one_short_printable_line() -> None:
    """Other people's text cannot write lines or colours of its own."""
    assert plain("a\r\nERROR b\x1b[31m" + "c" * 1000).startswith("a ERROR b [31mccc")
    assert len(plain("c" * 1000)) == 300


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "slack"},
        {"kind": "log", "url": "http://a"},
        {"kind": "webhook", "url": "http://a"},
        {"kind": "webhook", "url": "http://a", "secret": "whsec_short"},
        {"kind": "webhook", "url": "http://a", "secret": base64.b64encode(bytes(32)).decode()},
        {"kind": "slack", "url": "http://a", "secret": SECRET},
        {"kind": "slack", "url": "file:///etc/passwd"},
        {"kind": "slack", "url": "http://"},
        {"kind": "slack", "url": "http://a:0"},
        {"kind": "slack", "url": "http://a b"},
        {"kind": "slack", "url": "http://[::1"},
        {"kind": "slack", "url": "http://a", "severity": "high"},
    ],
)
def test_bad_settings_are_refused(fields: dict[str, str]) -> None:
    """What could never work is refused at the start."""
    with pytest.raises(ValidationError):
        SinkSettings.model_validate(fields)


def test_what_is_shown_of_a_url_is_no_secret() -> None:
    """Scheme, host and port; no password, no path."""
    assert HOOK.shown == "https://hook.example"
    assert "pw" not in repr(HOOK)
    assert "T/B" not in repr(SLACK)
