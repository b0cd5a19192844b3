"""For vLLM behind an edge of one's own: the adapter that the edge named by a header answers.

vLLM takes the adapter's name from the body's ``model``, which nginx and the Gateway API cannot rewrite. Where the
model servers have every adapter under its own name (as Ratchet's controller loads them), start them with
``--middleware ratchet.infra.models.named_adapter.NamedAdapter`` and name the base model ``base`` too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HEADER = b"x-ratchet-adapter"
"""The edge must set it on every request, whatever its client sent: it decides who answers."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class NamedAdapter:
    """ASGI middleware: in a request with the header, the body's ``model`` is what the header names."""

    def __init__(self, app: App) -> None:
        """Stand before ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its model replaced where it has one and the header names another."""
        named = dict(scope["headers"]).get(HEADER) if scope["type"] == "http" and scope["method"] == "POST" else None
        if named is None:
            await self._app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client left before its request was whole
            body += message.get("body", b"")
            more = message.get("more_body", False)
        body = _renamed(body, named.decode("latin-1"))
        headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        sent = False

        async def replaced() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app({**scope, "headers": headers}, replaced, send)


def _renamed(body: bytes, model: str) -> bytes:
    try:
        asked = json.loads(body)
    except ValueError:
        return body  # vLLM says what is wrong with it
    if not isinstance(asked, dict) or "model" not in asked:
        return body
    return json.dumps(asked | {"model": model}).encode()
