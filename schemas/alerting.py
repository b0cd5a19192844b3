"""Where alerts go: one `SinkSettings` a ``[sinks.<name>]`` of ``ratchet.toml``."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from ratchet.schemas.ids import TaskName

Severity = Literal["info", "warning", "critical"]
RANK: dict[str, int] = {"info": 0, "warning": 1, "critical": 2}
SECRET_PREFIX = "whsec_"  # noqa: S105 - what secrets begin with, no secret


def signing_key(secret: str) -> bytes:
    """The key of a webhook's secret as Standard Webhooks 1.0.0 writes it: ``whsec_`` and base64.

    Raises:
        ValueError: it is not so, or has less than 24 or more than 64 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError("allowed is whsec_ and 24 to 64 bytes in base64: echo whsec_$(openssl rand -base64 32)")
    return key


def is_http(url: str) -> bool:
    """Whether it is ``http(s)://[user:password@]host[:port][/path]``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _address(url: SecretStr) -> SecretStr:
    if not is_http(url.get_secret_value()):
        raise ValueError("allowed is http(s)://[user:password@]host[:port][/path]")
    return url


def _signs(secret: SecretStr) -> SecretStr:
    signing_key(secret.get_secret_value())
    return secret


Receiver = Annotated[SecretStr, AfterValidator(_address)]
"""Where something is sent to; a secret as a whole: it may hold a password, or the right to post."""
SigningSecret = Annotated[SecretStr, AfterValidator(_signs)]
"""What messages are signed with: ``whsec_`` and 24 to 64 bytes in base64."""


def shown(url: SecretStr) -> str:
    """An address without what is secret of it: scheme, host and port."""
    parts = urlsplit(url.get_secret_value())
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class SinkSettings(BaseModel):
    """One receiver of alerts.

    ``url`` is a secret as a whole: Slack's holds the right to post, others a password.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["alertmanager", "slack", "webhook", "log"]
    url: Receiver | None = Field(None, description="http(s)://[user:password@]host[:port][/path]; none for 'log'")
    secret: SigningSecret | None = Field(
        None, repr=False, description="of kind 'webhook': whsec_ and 24 to 64 bytes in base64"
    )
    severity: Severity = Field("info", description="alerts below it do not begin here")
    tasks: list[TaskName] = Field(
        [], description="alerts of these tasks, and those that concern every task; empty: all"
    )
    allow_private: bool = Field(False, description="loopback and private addresses may be connected to")
    reminder_hours: Annotated[float, Field(ge=0, le=24 * 365)] = Field(
        24.0, description="an open alert is said again after so long; 0: never; Alertmanager has a rule of its own"
    )
    resend_s: Annotated[float, Field(ge=0.1, le=3600)] = Field(
        60.0, description="Alertmanager hears of an open alert so often, and ends it after five times that in silence"
    )
    timeout_s: Annotated[float, Field(gt=0, le=120)] = Field(10.0, description="of one try, name lookup and all")
    link: str = Field("", description="a page that people should land on, e.g. your dashboard; http(s)://…")

    @field_validator("link")
    @classmethod
    def _link(cls, link: str) -> str:
        if link and not is_http(link):
            raise ValueError("allowed is http(s)://host[:port][/path]")
        return link

    @model_validator(mode="after")
    def _fits(self) -> SinkSettings:
        if (self.url is None) != (self.kind == "log"):
            raise ValueError(f"kind {self.kind!r} " + ("has no url" if self.url else "needs a url"))
        if (self.secret is not None) != (self.kind == "webhook"):
            raise ValueError("secret goes with kind 'webhook' and only with it")
        return self

    @property
    def shown(self) -> str:
        """Where it goes, without what is secret of it: scheme, host and port."""
        return "this process's log" if self.url is None else shown(self.url)
