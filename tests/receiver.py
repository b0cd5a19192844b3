"""A real HTTP server that takes alerts and keeps what came; tests say what it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Came:
    """One request."""

    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """Its JSON."""
        return json.loads(self.raw)


class Receiver:
    """Answers 200, or what ``answer`` says of the n-th request (from 0): status, headers, body."""

    def __init__(self, port: int = 0) -> None:
        self.came: list[Came] = []
        self.answer: Callable[[int], tuple[int, dict[str, str], bytes]] = lambda _: (200, {}, b"ok")
        self.hold: threading.Event | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                number = len(receiver.came)
                receiver.came.append(Came(self.path, {k.lower(): v for k, v in self.headers.items()}, raw))
                if receiver.hold is not None:
                    receiver.hold.wait()
                status, headers, body = receiver.answer(number)
                try:
                    self.send_response(status)
                    for name, value in ({"content-length": str(len(body))} | headers).items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # the sender was killed, or had enough

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = int(self.server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.hold is not None:
            self.hold.set()
        self.server.shutdown()
        self.server.server_close()
