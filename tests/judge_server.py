"""A real HTTP server that speaks OpenAI's chat completions, for the tests of whoever asks a judge."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class JudgeServer:
    """Listens from the start; ``answer`` decides what it says: a status, a JSON value or a text, and headers."""

    def __init__(self, answer: Callable[[dict[str, Any]], Reply]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                endpoint.asked.append(body | {"authorization": self.headers["authorization"], "path": self.path})
                status, reply, *more = endpoint.answer(body)
                raw = (reply if isinstance(reply, str) else json.dumps(reply)).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # a client that lost its patience
                    self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        self.server.shutdown()
        self.server.server_close()


def says(*texts: str, top: dict[str, float] | None = None, tokens: int = 30, **message: Any) -> tuple[int, Any]:
    """A completion with a choice a text, with the probabilities of its one token where given."""
    logprobs = None
    if top is not None:
        alternatives = [
            {"token": token, "logprob": math.log(p) if p == p else p, "bytes": None} for token, p in top.items()
        ]
        logprobs = {"content": [{"token": texts[0], "logprob": 0.0, "bytes": None, "top_logprobs": alternatives}]}
    choices = [
        {
            "index": index,
            "finish_reason": "stop",
            "logprobs": logprobs,
            "message": {"role": "assistant", "content": text} | message,
        }
        for index, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": tokens, "completion_tokens": 2 * len(texts), "total_tokens": tokens + 2 * len(texts)}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return 200, head | {"choices": choices, "usage": usage}
