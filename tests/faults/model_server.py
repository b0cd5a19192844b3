"""The fault tests' model server: it speaks OpenAI's protocol, streams word by word and ends its streams late.

Run as ``python model_server.py PORT``. A question of the form ``words N pause S size B`` says how the answer
comes: N words of B bytes, S seconds between them.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from typing import Any

from aiohttp import web

QUESTION = re.compile(r"words (\d+) pause (\S+) size (\d+)")
LINGER_S = 0.02
"""A stream's connection stays open for so long behind its end, as a busy server's does."""


ROOTS = {"tiny": "/tiny"}
"""What is served, and from where."""


async def models(_: web.Request) -> web.Response:
    """Name the base model, and the adapters that were loaded."""
    data = [{"id": name, "object": "model", "root": root} for name, root in ROOTS.items()]
    return web.json_response({"object": "list", "data": data})


async def load(request: web.Request) -> web.Response:
    """Load an adapter, a name once, as vLLM does."""
    asked = await request.json()
    name = asked["lora_name"]
    if name in ROOTS:
        return web.json_response({"error": {"message": f"{name} has already been loaded"}}, status=400)
    ROOTS[name] = asked["lora_path"]
    return web.json_response({})


async def unload(request: web.Request) -> web.Response:
    """Unload an adapter."""
    return web.json_response({}, status=200 if ROOTS.pop((await request.json())["lora_name"], None) else 404)


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer a chat."""
    body = await request.json()
    if body["model"] not in ROOTS:
        return web.json_response({"error": {"message": f"{body['model']} does not exist"}}, status=404)
    asked = QUESTION.fullmatch(body["messages"][-1]["content"])
    count, pause, size = asked.groups() if asked else ("1", "0", "8")
    words = ["w" * (int(size) - 1) + " "] * int(count)
    usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
    head = {"id": "chatcmpl-1", "created": 1_790_000_000, "model": "tiny"}
    if not body.get("stream"):
        await asyncio.sleep(len(words) * float(pause))
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return web.json_response({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)

    async def say(**fields: Any) -> None:
        chunk = {**head, "object": "chat.completion.chunk", **fields}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    try:
        for word in words:
            await say(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}])
            await asyncio.sleep(float(pause))
        await say(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await say(choices=[], usage=usage)
        await response.write(b"data: [DONE]\n\n")
        await asyncio.sleep(LINGER_S)
    except ConnectionResetError:
        pass  # the gateway was killed, or its client left
    return response


def main() -> None:
    """Serve until a signal."""
    app = web.Application()
    app.router.add_get("/v1/models", models)
    app.router.add_post("/v1/load_lora_adapter", load)
    app.router.add_post("/v1/unload_lora_adapter", unload)
    app.router.add_post("/v1/chat/completions", complete)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, shutdown_timeout=0.5)


if __name__ == "__main__":
    main()
