"""The shape of an API key as it is kept: everything but the secret, of which only the hash stays."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed, Instant

KeyScope = Literal["infer", "feedback", "ingest", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
DEFAULT_TENANT = "default"
"""Whose traffic it is where no key says otherwise."""

Label = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Key(Closed):
    """One key. A scope allows what it names and nothing else: ``admin`` reads metrics, it does not infer."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    name: Label
    """For people: who uses it."""
    tenant: Label
    scopes: Annotated[list[KeyScope], Field(min_length=1)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the whole secret, ``rk_`` included."""
    created_at: Instant
    revoked_at: Instant | None = None
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """None: no limit."""


class Keys(Closed):
    """The key file. Revoked keys stay in it, so it never becomes empty again once a key was made."""

    keys: Annotated[list[Key], Field(min_length=1)]

    @model_validator(mode="after")
    def _each_once(self) -> Keys:
        for field in ("id", "sha256"):
            if len({getattr(key, field) for key in self.keys}) != len(self.keys):
                raise ValueError(f"keys: two have the same {field}; allowed: each once")
        return self
