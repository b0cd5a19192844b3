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
    """The three headers; the time is that of this try, so that a receiver may refuse what is old."""
    assert settings.secret is not None
    stamp = str(int(now.timestamp()))
    signed = b"%b.%b.%b" % (notice.id.encode(), stamp.encode(), raw)
    digest = hmac.new(signing_key(settings.secret.get_secret_value()), signed, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": notice.id, "webhook-timestamp": stamp, "webhook-signature": signature}
