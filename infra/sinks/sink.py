"""A configured sink: sends one notice and says what came of it."""

from __future__ import annotations

import logging
from datetime import datetime

import orjson

from ratchet.infra.sinks import alertmanager, slack, webhook
from ratchet.infra.sinks.http import Outcome, plain, post
from ratchet.infra.sinks.notice import Notice, facts, headline
from ratchet.schemas.alerting import SinkSettings

log = logging.getLogger("ratchet.alerts")
_LEVEL = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.CRITICAL}


async def send(notice: Notice, settings: SinkSettings, now: datetime) -> Outcome:
    """Say one notice to one sink, once.

    Args:
        notice: what to say.
        settings: to whom.
        now: the present instant, with zone.
    """
    if settings.kind == "log" or settings.url is None:
        known = "; ".join(f"{name}: {value}" for name, value in facts(notice).items())
        level = logging.INFO if notice.alert.state == "resolved" else _LEVEL[notice.alert.severity]
        # one line, whatever the alert holds: other people's text cannot write lines of its own into the log
        log.log(level, "%s %s (%s, alert %s)", plain(headline(notice)), plain(notice.alert.summary), plain(known),
                notice.alert.id)  # fmt: skip
        return Outcome("taken", "written to the log")
    path, headers = "", {}
    if settings.kind == "alertmanager":
        path, raw = alertmanager.PATH, orjson.dumps(alertmanager.body(notice, settings, now))
    elif settings.kind == "slack":
        raw = orjson.dumps(slack.body(notice, settings))
    else:
        raw = webhook.body(notice, settings)
        headers = webhook.headers(notice, raw, settings, now)
    return await post(
        settings.url.get_secret_value(), path, raw, headers,
        timeout_s=settings.timeout_s, allow_private=settings.allow_private,
    )  # fmt: skip
