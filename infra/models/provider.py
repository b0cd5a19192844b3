"""A provider of models that are trained and served there: what it serves now, asked with its key."""

from __future__ import annotations

from types import TracebackType

import httpx

from ratchet.infra.models.vllm import address
from ratchet.schemas.errors import ModelError


class Provider:
    """The part of an OpenAI-compatible provider that says which models are there.

    Args:
        url: its address without ``/v1``.
        api_key: sent as a bearer token; never logged.
        timeout_s: for one call.
        transport: another way to it than the network.
    """

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float = 30.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.Client(timeout=timeout_s, transport=transport, headers=headers)

    def __enter__(self) -> Provider:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> dict[str, str]:
        """Every model that it serves, by its id, which is also the value.

        Raises:
            ModelError: it is away, refuses, or answers something else.
        """
        try:
            response = self._http.get(f"{self.url}/v1/models")
        except httpx.HTTPError as error:
            raise ModelError(f"{address(self.url)} is away: {error or type(error).__name__}") from error
        if not response.is_success:
            raise ModelError(f"{address(self.url)}/v1/models answered {response.status_code}: {response.text[:200]}")
        try:
            return {str(model["id"]): str(model["id"]) for model in response.json()["data"]}
        except (ValueError, KeyError, TypeError):
            raise ModelError(f"{address(self.url)}/v1/models did not answer with a list of models") from None
