"""What `bench_rollback` puts around its gateways: instant model servers that note who was asked for, a steady client.

Run by it as ``python rollback_parts.py upstream PORT LOG NAME…`` and ``client RATE LOG URL…``, until killed. Every
line of a log is one request: a model server's has the time of its arrival and the adapter; the client's the time of
its answer's end, the adapter and the stage (``-`` where it failed), and the user.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from typing import Any, TextIO

import openai
import orjson
from gateway_parts import ANSWER, QUESTION, Upstream

USERS = 41
"""Each keeps to one arm as long as a rollout lasts. An odd number, so that every user comes to every gateway."""


class Noting(Upstream):
    """Answers at once, and writes down which adapter was asked for when."""

    def __init__(self, names: list[str], log: TextIO) -> None:
        """Serve these names."""
        self._models = orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
        self._log = log

    def answer(self, head: bytes, body: bytes) -> bytes:
        """Note the request before it is answered."""
        if head.startswith(b"get "):
            return self._models
        self._log.write(f"{time.time()} {orjson.loads(body)['model']}\n")
        return ANSWER


async def upstream(port: int, log: TextIO, names: list[str]) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Noting(names, log), "127.0.0.1", port)
    await server.serve_forever()


async def client(rate: float, log: TextIO, urls: list[str]) -> None:
    """Ask ``rate`` times a second by OpenAI's own client, without retries, the gateways in turn, until killed."""
    clients = [openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) for url in urls]
    asked: dict[str, Any] = QUESTION
    running: set[asyncio.Task[None]] = set()

    async def ask(number: int) -> None:
        user, adapter, stage = f"user-{number % USERS}", "-", "-"
        try:
            completions = clients[number % len(clients)].chat.completions.with_raw_response
            headers = (await completions.create(**asked, user=user)).headers
            adapter, stage = headers["x-ratchet-adapter"], headers["x-ratchet-stage"]
        except openai.OpenAIError as error:
            print(f"{user}: {error!r}", file=sys.stderr)
        log.write(f"{time.time()} {adapter} {stage} {user}\n")

    begun = time.monotonic()
    for number in itertools.count():
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        task = asyncio.create_task(ask(number))
        running.add(task)
        task.add_done_callback(running.discard)


def main(arguments: list[str]) -> None:
    """Run one part."""
    import uvloop

    match arguments:
        case ["upstream", port, log, *names]:
            uvloop.run(upstream(int(port), open(log, "w", buffering=1), names))  # noqa: SIM115 - until it is killed
        case ["client", rate, log, *urls]:
            uvloop.run(client(float(rate), open(log, "w", buffering=1), urls))  # noqa: SIM115 - until it is killed
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
