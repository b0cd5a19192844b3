"""Every model server of every pool, as far as managing adapters goes: vLLM replicas load them, providers have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ratchet.infra.models.answer import Answer
from ratchet.infra.models.provider import Provider
from ratchet.infra.models.vllm import VllmClient, address
from ratchet.schemas.errors import ModelError


class Fleet:
    """vLLM replicas of any number of base models, and providers.

    Args:
        vllm: a client of all replicas.
        providers: of the pools that are none of ours.
    """

    def __init__(self, vllm: VllmClient, providers: Sequence[Provider] = ()) -> None:
        self._vllm = vllm
        self._providers = {provider.url: provider for provider in providers}

    def close(self) -> None:
        """Close the connections."""
        self._vllm.close()
        for provider in self._providers.values():
            provider.close()

    def models(self, on: Collection[str]) -> dict[str, dict[str, str]]:
        """What each of these servers serves, by address: the path behind each name.

        Raises:
            ModelError: one is away or answers with an error.
        """
        ours = [url for url in on if url not in self._providers]
        theirs = {url: self._providers[url].models() for url in on if url in self._providers}
        return self._vllm.models(ours) | theirs

    def load_adapter(self, name: str, path: Path | str, on: Collection[str]) -> None:
        """Load an adapter on these replicas, and see that each of them serves it; see `VllmClient.load_adapter`.

        Raises:
            ModelError: as there; or one of the addresses is a provider's, which loads nothing.
        """
        for url in on:
            if url in self._providers:
                raise ModelError(f"{name}: {address(url)} is a provider, which serves what it trained alone")
        self._vllm.load_adapter(name, path, on)

    def ask(self, name: str, messages: Sequence[Mapping[str, str]], on: str, max_tokens: int) -> Answer:
        """Ask one vLLM replica a question, greedily; see `VllmClient.ask`.

        Raises:
            ModelError: as there.
        """
        return self._vllm.ask(name, messages, on, max_tokens)

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter on every vLLM replica that has it; see `VllmClient.unload_adapter`.

        Raises:
            ModelError: as there.
        """
        self._vllm.unload_adapter(name)
