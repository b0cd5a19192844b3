"""A model server that speaks OpenAI's protocol over real HTTP, for the tests of whoever stands in front of one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

BASE_MODEL = "tiny"
STABLE = "support@v1-aaaaaaaa"
CANDIDATE = "support@v2-bbbbbbbb"


@dataclass
class ModelServer:
    """The test's model server. ``faults`` names, by model, what goes wrong with it.

    A fault is an HTTP status, or ``drop`` (connection closed at once), ``hang`` (no answer),
    ``lingers`` (a stream whose connection stays open for a while behind its end),
    ``held`` (an answer once `World.hold`'s gate opens),
    ``garbage`` (200 and no JSON), ``cut`` (a stream that breaks off after its first word) or
    ``late`` (an error event after the first word). A list of them is one for each request, then none.
    """

    models: list[str] = field(default_factory=lambda: [BASE_MODEL, STABLE, CANDIDATE])
    faults: dict[str, int | str | list[int | str]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    words: tuple[str, ...] = ("All", " is", " well")
    keys: list[str] = field(default_factory=list)
    """The authorization of each request, whatever it asked for."""
    gate: asyncio.Event | None = None
    """Set: every answer after a stream's first word waits for it."""
    url: str = ""
    away: bool = False
    """It does not even list its models."""
    left: threading.Event = field(default_factory=threading.Event)
    """A client hung up on a stream."""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/models", self.list_models)
        app.router.add_post("/v1/chat/completions", self.complete)
        app.router.add_post("/v1/completions", self.complete)
        return app

    async def list_models(self, request: web.Request) -> web.Response:
        self.keys.append(request.headers.get("authorization", ""))
        if self.away:
            return web.json_response({}, status=503)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.requests.append(body)
        self.keys.append(request.headers.get("authorization", ""))
        fault = self.faults.get(body["model"])
        if isinstance(fault, list):
            fault = fault.pop(0) if fault else None
        if isinstance(fault, int):
            return web.json_response({"error": {"message": f"fault {fault}", "code": fault}}, status=fault)
        if body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist."
            return web.json_response({"error": {"message": message, "type": "NotFoundError", "code": 404}}, status=404)
        if fault == "drop":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "hang":
            await asyncio.sleep(60)
        if fault == "garbage":
            return web.Response(text="<html>", content_type="application/json")
        if fault == "held":
            assert self.gate is not None
            await self.gate.wait()
            return web.json_response(self.whole(request.path, body))
        if body.get("stream"):
            return await self.stream(request, body, fault)
        if self.gate and "held" not in self.faults.values():
            await self.gate.wait()
        return web.json_response(self.whole(request.path, body))

    def whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        text = "".join(self.words)
        if body.get("tools"):
            call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}
            part: dict[str, Any] = {"message": {"role": "assistant", "content": None, "tool_calls": [call]}}
        elif path.endswith("chat/completions"):
            part = {"message": {"role": "assistant", "content": text}}
        else:
            part = {"text": text}
        finish = "tool_calls" if body.get("tools") else "stop"
        said = logprobs(self.words) if body.get("logprobs") else None
        choices = [{"index": i, "finish_reason": finish, "logprobs": said, **part} for i in range(body.get("n") or 1)]
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**head, "choices": choices, "usage": usage}

    def deltas(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        if body.get("tools"):
            first = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
            parts = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"order"', ": 7}")]
            return [{"delta": {"tool_calls": [part]}} for part in (first, *parts)]
        if path.endswith("chat/completions"):
            said = [{"delta": {"content": word}} for word in self.words]
            if body.get("logprobs"):
                said = [{**one, "logprobs": logprobs([word])} for one, word in zip(said, self.words, strict=True)]
            return [{"delta": {"role": "assistant"}}, *said]
        return [{"text": word} for word in self.words]

    async def stream(self, request: web.Request, body: dict[str, Any], fault: int | str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        kind = "text_completion" if "prompt" in body else "chat.completion.chunk"
        head = {"id": "x", "object": kind, "created": 1, "model": body["model"]}

        async def say(chunk: dict[str, Any]) -> None:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

        try:
            wanted = range(body.get("n") or 1)
            for number, delta in enumerate(self.deltas(request.path, body)):
                for index in wanted:
                    await say({**head, "choices": [{"index": index, "finish_reason": None, **delta}]})
                if number == 1 and fault == "cut":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                if number == 1 and fault == "late":
                    await say({"error": {"message": "out of memory", "code": 500}})
                    return response
                if self.gate and number == 1:
                    await self.gate.wait()
            finish = "tool_calls" if body.get("tools") else "stop"
            end = {"text": ""} if "prompt" in body else {"delta": {}}
            for index in wanted:
                await say({**head, "choices": [{"index": index, "finish_reason": finish, **end}]})
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
                await say({**head, "choices": [], "usage": usage})
            await response.write(b"data: [DONE]\n\n")
            if fault == "lingers":
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            self.left.set()
            raise
        except ConnectionResetError:
            self.left.set()
        return response


def logprobs(words: Sequence[str]) -> dict[str, Any]:
    """What a chat's ``logprobs`` looks like."""
    return {"content": [{"token": word, "logprob": -0.5, "bytes": None, "top_logprobs": []} for word in words]}


@pytest.fixture(scope="session")
def model_server() -> type[ModelServer]:
    """Makes model servers."""
    return ModelServer
