"""Slack-compatible incoming webhooks: blocks for people, ``text`` for notifications and for what knows no blocks."""

from __future__ import annotations

from typing import Any

from ratchet.infra.sinks.notice import Notice, cut, facts, headline
from ratchet.schemas.alerting import SinkSettings

HEADER, SECTION, FIELD, TEXT = 150, 3000, 2000, 3000
"""Characters that Slack takes of a header block, a section's text, one of its fields; of ``text`` it advises."""


def body(notice: Notice, settings: SinkSettings) -> dict[str, Any]:
    """The message; nothing in it can mention a channel or pass for a link: every ``<`` of the alert is escaped."""
    alert = notice.alert
    paragraphs = [text for text in (alert.summary, alert.action and f"What to do: {alert.action}") if text]
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": cut(headline(notice), HEADER), "emoji": False}}
    ]
    blocks += [{"type": "section", "text": mrkdwn(text, SECTION)} for text in paragraphs]
    fields = [mrkdwn(f"{name}: {value}", FIELD) for name, value in facts(notice).items()]
    blocks.append({"type": "section", "fields": fields[:10]})
    foot = f"alert {alert.id}" + (f" · {settings.link}" if settings.link else "")
    blocks.append({"type": "context", "elements": [mrkdwn(foot, FIELD)]})
    return {"text": escape(headline(notice) + "\n" + alert.summary, TEXT), "blocks": blocks}


def mrkdwn(text: str, most: int) -> dict[str, Any]:
    """A text object; ``verbatim`` keeps Slack from making links and mentions out of plain words."""
    return {"type": "mrkdwn", "text": escape(text, most), "verbatim": True}


def escape(text: str, most: int) -> str:
    """Escape Slack's three control characters; at most ``most`` characters, no escape cut in two."""
    short = cut(text, most)
    while len(done := short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) > most:
        short = cut(short, len(short) - max(1, (len(done) - most) // 5))
    return done
