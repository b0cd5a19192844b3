"""Any receiver: the alert as JSON, signed as Standard Webhooks 1.0.0 says (HMAC-SHA256, ``v1``)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

import orjson

from ratchet.infra.sinks.notice import Notice
from ratchet.schemas.alerting import SinkSettings, signing_key

MOST_BYTES = 64 * 1024
"""Larger evidence is left out and the message says so; the specification advises small bodies."""


def body(notice: Notice, settings: SinkSettings) -> bytes:
    """``{type, timestamp, data}``: what happened, when, and the whole ``alert.v1`` with the page to look at."""
    data = orjson.loads(notice.alert.to_bytes())
    message = {"type": f"alert.{notice.reason}", "timestamp": data["at"], "data": data}
    if settings.link:
        message["link"] = settings.link
    raw = orjson.dumps(message)
    if len(raw) > MOST_BYTES:
        data["evidence"] = {"left_out": f"{len(raw)} bytes; see `ratchet alerts --json`"}
        for field in ("summary", "action", "runbook"):
            data[field] = str(data.get(field) or "")[:8000]
        raw = orjson.dumps(message)
    return raw


def headers(notice: Notice, raw: bytes, settings: SinkSettings, now: datetime) -> dict[str, str]:
    """The three headers of a notice."""
    assert settings.secret is not None
    return signed(notice.id, raw, settings.secret.get_secret_value(), now)


def signed(id: str, raw: bytes, secret: str, now: datetime) -> dict[str, str]:
    """The three headers of a message; the time is that of this try, so that a receiver may refuse what is old.

    Args:
        id: the same however often the message is sent.
        raw: the message.
        secret: ``whsec_`` and base64.
        now: the present instant, with zone.
    """
    stamp = str(int(now.timestamp()))
    content = b"%b.%b.%b" % (id.encode(), stamp.encode(), raw)
    digest = hmac.new(signing_key(secret), content, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": id, "webhook-timestamp": stamp, "webhook-signature": signature}
