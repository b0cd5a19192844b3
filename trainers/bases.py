"""What adapters are trained on: a base model's folder or a provider, and where what comes of it is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ratchet.trainers.managed import Provider

if TYPE_CHECKING:
    from openai import AsyncOpenAI

FIRST = ""
"""The pool of ``vllm_urls`` and ``base_model``."""


class Replicas(Protocol):
    """Every vLLM replica of a pool, as far as training needs them."""

    def load_adapter(self, name: str, path: Path | str) -> None:
        """Load an adapter everywhere; raises `ModelError`."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a new adapter is loaded, and where it is asked the held-out prompts."""

    replicas: Replicas | None
    """None: a provider's, which serves what it trained."""
    chat: Callable[[], AsyncOpenAI]
    """Makes a client of one server; closed after each evaluation."""


@dataclass(frozen=True, slots=True)
class Base:
    """One pool's base model: trained on here, in its folder (``path`` may have to unpack it first), or by a provider.

    ``serving`` None registers adapters without loading or asking them.
    """

    model: str
    path: Callable[[], Path] | None
    provider: Callable[[], Provider] | None = None
    serving: Serving | None = None
