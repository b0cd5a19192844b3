"""Behind an edge of one's own the header that it set says which adapter answers."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from ratchet.infra.models.named_adapter import NamedAdapter, Receive, Scope, Send

ADAPTER = "support@v2-4e5f6a7b"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body as it came, and how long its header said it is."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    length = dict(scope["headers"]).get(b"content-length", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-length", length)]})
    await send({"type": "http.response.body", "body": body})


async def asked(content: Any, headers: dict[str, str]) -> httpx.Response:
    """What the app behind the middleware got."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(NamedAdapter(echo)), base_url="http://vllm") as client:
        return await client.post("/v1/chat/completions", content=content, headers=headers)


async def test_the_header_names_the_model() -> None:
    """The rest of the body stays as it is, in any number of parts, and its length is told anew."""
    body = {"model": "support", "messages": [{"role": "user", "content": "Grüße"}], "n": 1, "temperature": 0.7}
    raw = json.dumps(body).encode()

    async def parts() -> Any:
        for start in range(0, len(raw), 7):
            yield raw[start : start + 7]

    answer = await asked(parts(), {"x-ratchet-adapter": ADAPTER})
    assert answer.json() == body | {"model": ADAPTER}
    assert int(answer.headers["x-length"]) == len(answer.content)


@pytest.mark.parametrize("body", [b'{"model": "support"', b"[1]", b'{"lora_name": "x"}', b"\xff"])
async def test_what_names_no_model_passes_as_it_is(body: bytes) -> None:
    """Bad bodies are vLLM's to refuse, and other calls have no model to replace."""
    assert (await asked(body, {"x-ratchet-adapter": ADAPTER})).content == body


async def test_without_the_header_nothing_changes() -> None:
    """Whoever asks the server itself names the model in the body."""
    assert (await asked(b'{"model":  "support"}', {})).content == b'{"model":  "support"}'
