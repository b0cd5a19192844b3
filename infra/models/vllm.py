"""Adapters on every vLLM replica: load, unload, see what is served.

vLLM does not tell its replicas about each other's adapters and forgets them when it restarts,
so every question goes to every replica, and "loaded" means loaded on all that were named.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from ratchet.infra.models.answer import Answer, of_completion
from ratchet.schemas.errors import ModelError
from ratchet.schemas.ids import ADAPTER_NAME


class VllmClient:
    """A client of every replica, for whoever manages adapters (requests go through the gateway).

    Args:
        urls: addresses of the replicas, without ``/v1``; at least one.
        timeout_s: for one call; a load reads the adapter's weights, which takes well under a second.
        transport: another way to the replicas than the network.
    """

    def __init__(
        self, urls: Sequence[str], timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        if not urls:
            raise ModelError("no vLLM replica is configured")
        self._urls = [url.rstrip("/") for url in urls]
        self._http = httpx.Client(timeout=timeout_s, transport=transport)

    def __enter__(self) -> VllmClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Say whether every replica serves now; never raises."""
        try:
            return all(self._http.get(f"{url}/health", timeout=2).status_code == 200 for url in self._urls)
        except httpx.HTTPError:
            return False

    def models(self, on: Collection[str] | None = None) -> dict[str, dict[str, str]]:
        """List what each replica serves.

        Args:
            on: the addresses of the replicas that are asked; None: all of them.

        Returns:
            For each replica's address, the path behind each model's or adapter's name.

        Raises:
            ModelError: a replica is away or answers with an error.
        """
        return {url: self._served(url) for url in (self._urls if on is None else on)}

    def everywhere(self) -> set[str]:
        """Name the models and adapters that every replica serves.

        Raises:
            ModelError: a replica is away or answers with an error.
        """
        served = [set(names) for names in self.models().values()]
        return set.intersection(*served)

    def load_adapter(self, name: str, path: Path | str, on: Collection[str] | None = None) -> None:
        """Load an adapter on replicas, and see that each of them serves it.

        Doing it twice is doing it once; another adapter under a used name is refused, because
        vLLM's prefix cache would mix the two.

        Args:
            name: the adapter.
            path: its folder, as the replicas see it.
            on: the addresses of the replicas that get it; None: all of them.

        Raises:
            ModelError: a wrong name, a name in use for another path, a replica that refuses or is away.
        """
        _check_name(name)
        for url in self._urls if on is None else on:
            loaded = self._served(url).get(name)
            if loaded is None:
                body = {"lora_name": name, "lora_path": str(path)}
                response = self._call("POST", f"{url}/v1/load_lora_adapter", body, allowed=(400,))
                # A 400 may mean that somebody else loaded it meanwhile: what is served decides.
                loaded = self._served(url).get(name)
                if loaded is None:
                    raise ModelError(f"{address(url)} refused to load {name} from {path}: {_reason(response)}")
            if loaded != str(path):
                raise ModelError(
                    f"{address(url)} serves {name} from {loaded} already, not from {path}; names are never reused"
                )

    def ask(self, name: str, messages: Sequence[Mapping[str, str]], on: str, max_tokens: int) -> Answer:
        """Ask one replica a question, greedily, past every gateway: no event is made of it.

        Args:
            name: the adapter.
            messages: the chat.
            on: the replica's address.
            max_tokens: the longest answer.

        Raises:
            ModelError: the replica refuses or is away.
        """
        body = {
            "model": name, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0,
            "logprobs": True, "top_logprobs": 5,
        }  # fmt: skip
        response = self._call("POST", f"{on}/v1/chat/completions", body)
        return of_completion(response.content, f"vLLM at {address(on)}")

    def unload_adapter(self, name: str) -> None:
        """Unload an adapter on every replica; one that is not loaded is no error.

        Raises:
            ModelError: a wrong name, or a replica that refuses or is away.
        """
        _check_name(name)
        for url in self._urls:
            self._call("POST", f"{url}/v1/unload_lora_adapter", {"lora_name": name}, allowed=(404,))

    def _served(self, url: str) -> dict[str, str]:
        body = self._call("GET", f"{url}/v1/models").json()
        try:
            return {str(model["id"]): str(model.get("root") or "") for model in body["data"]}
        except (KeyError, TypeError, AttributeError):
            raise ModelError(f"{address(url)}/v1/models did not answer with a list of models") from None

    def _call(
        self, method: str, url: str, body: dict[str, Any] | None = None, allowed: tuple[int, ...] = ()
    ) -> httpx.Response:
        try:
            response = self._http.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise ModelError(f"vLLM at {address(url)} is away: {error or type(error).__name__}") from error
        if response.is_success or response.status_code in allowed:
            return response
        raise ModelError(f"vLLM at {address(url)} answered {response.status_code}: {_reason(response)}")


def address(url: str) -> str:
    """An address without the user and password that it may carry: for messages, logs and metrics."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_name(name: str) -> None:
    if not ADAPTER_NAME.match(name):
        raise ModelError(f"{name!r} names no adapter; allowed: <task>@v<number>-<8 hex digits>")


def _reason(response: httpx.Response) -> str:
    """Find the sentence in an error body, whichever of vLLM's shapes it has."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:500].strip() or "it gave no reason"
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return str(message or "it gave no reason")[:500]
