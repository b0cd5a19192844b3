"""The operators' HTTP API, one raw ASGI app: where rollouts stand, why, and a person's word in them.

What it says is what the command line says with ``--json``; what it is told goes to the controller the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import parse_qs

import orjson
from pydantic import Field, ValidationError

from ratchet.schemas.errors import BrokerError, RolloutError, StoreError
from ratchet.schemas.events import Closed
from ratchet.schemas.ids import TASK_NAME, AdapterName
from ratchet.schemas.keys import KeyScope
from ratchet.services.gateway.door import Door
from ratchet.services.gateway.errors import Refused, bad_field, first_problem
from ratchet.services.gateway.http import Gone, Headers, Receive, Scope, Send, json_object, read_body, send_bytes
from ratchet.services.operator.ask import Answer
from ratchet.services.rules.admission import Caller

log = logging.getLogger("ratchet.api")
SCOPE: KeyScope = "admin"
ROOT = "/v1/rollouts"
BODY_BYTES, BODY_S = 64 * 1024, 10.0
ANYONE = "http"
"""Who asked, where there are no keys and the body does not say."""
Verb = Literal["start", "retry", "promote", "pause", "resume", "abort", "undo"]
VERBS: tuple[Verb, ...] = get_args(Verb)
READS = ("why", "log")
_TAKES: Mapping[str, frozenset[str]] = {
    "full": frozenset({"promote"}),
    "adapter": frozenset({"start", "retry", "undo"}),
}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PLAIN = r"^[^\x00-\x1f\x7f-\x9f]*$"
"""Without control characters: it is shown on terminals."""


class Instruction(Closed):
    """The body of a POST: who asks and why, and what the verb takes besides."""

    who: str = Field("", max_length=256, pattern=_PLAIN)
    why: str = Field("", max_length=4_096, pattern=_PLAIN)
    full: bool = False
    adapter: AdapterName | None = None


@dataclass(frozen=True)
class Desk:
    """What the API does; each blocks, and is called on a thread.

    ``standings`` takes a task or None for all; ``why`` a task and an instant as a person writes it, '' for now; ``log``
    a task; ``ask`` a task, a verb and the rest of an instruction, its ``who`` filled in.
    """

    standings: Callable[[str | None], list[dict[str, Any]]]
    why: Callable[[str, str], dict[str, Any]]
    log: Callable[[str], list[dict[str, Any]]]
    ask: Callable[[str, Verb, Instruction], Answer]


class Api:
    """The ASGI app."""

    def __init__(self, desk: Desk, door: Door) -> None:
        """Take what is done, and who may."""
        self._desk, self._door = desk, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or run the app's life span."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"scope {scope['type']!r}: the API speaks HTTP")
        try:
            status, value = await self._answer(scope, receive)
            await _send(send, status, value)
        except Refused as refused:
            await send_bytes(send, refused.status, orjson.dumps(refused.body()), extra=refused.headers)
        except Gone:
            pass

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[int, Any]:
        path: str = scope["path"]
        if path == "/healthz":
            _allow(scope, "GET")
            return 200, {"status": "ok"}
        if path != ROOT and not path.startswith(ROOT + "/"):
            raise Refused(404, f"{path}: no such path", code="not_found")
        headers: Headers = dict(scope["headers"])
        caller = self._door.admit(scope["headers"], SCOPE)
        if not caller.bound:
            _from_here(headers)
        task, _, rest = path.removeprefix(ROOT).removeprefix("/").partition("/")
        if (task or rest) and not TASK_NAME.match(task):
            raise Refused(404, f"{task!r} is no task's name", code="not_found")
        try:
            if rest in VERBS:
                _allow(scope, "POST")
                return await self._instruct(task, rest, caller, headers, receive)
            _allow(scope, "GET")
            return 200, await self._read(task, rest, scope)
        except RolloutError as error:
            raise Refused(404, str(error), code="not_found") from None
        except (StoreError, BrokerError) as error:
            log.warning("%s %s: %s", scope["method"], path, error)
            raise Refused(503, str(error), code="unavailable") from None

    async def _read(self, task: str, rest: str, scope: Scope) -> Any:
        match task, rest:
            case "", "":
                return await asyncio.to_thread(self._desk.standings, None)
            case _, "":
                return (await asyncio.to_thread(self._desk.standings, task))[0]
            case _, "log":
                return await asyncio.to_thread(self._desk.log, task)
            case _, "why":
                said = parse_qs(scope["query_string"].decode("latin-1")).get("at", [""])[-1]
                if "T" in said:
                    said = said.replace(" ", "+")  # a zone's plus sign that was not escaped
                try:
                    return await asyncio.to_thread(self._desk.why, task, said)
                except ValueError as error:
                    raise bad_field("at", str(error)) from None
        allowed = ", ".join((*READS, *VERBS))
        raise Refused(404, f"{scope['path']}: no such path; behind a task: {allowed}", code="not_found")

    async def _instruct(
        self, task: str, verb: Verb, caller: Caller, headers: Headers, receive: Receive
    ) -> tuple[int, Any]:
        # a page in a browser on this machine can send other types here without asking first
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != b"application/json":
            raise Refused(415, "content-type: allowed: application/json", param="content-type", code="invalid_value")
        told = _instruction(await read_body(headers, receive, BODY_BYTES, BODY_S), verb)
        if caller.bound and told.who:
            raise bad_field("who", f"with an API key its name, {caller.name!r}, is recorded; allowed: leave it out")
        asked = told.model_copy(update={"who": caller.name or told.who or ANYONE})
        answer = await asyncio.to_thread(self._desk.ask, task, verb, asked)
        if answer.table is None:
            raise Refused(504, answer.silence, code="no_answer")
        if answer.refused:
            raise Refused(409, answer.table.reason, code="refused")
        return 200, answer.table.model_dump(mode="json")

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        following = asyncio.create_task(self._door.follow())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        following.cancel()
        await send({"type": "lifespan.shutdown.complete"})


def _instruction(raw: bytes, verb: Verb) -> Instruction:
    value = json_object(raw or b"{}")
    try:
        told = Instruction.model_validate(value)
    except ValidationError as error:
        raise bad_field(*first_problem(error)) from None
    for field, verbs in _TAKES.items():
        if getattr(told, field) and verb not in verbs:
            raise bad_field(field, f"{verb} takes none; allowed with: {', '.join(sorted(verbs))}")
    if verb == "start" and told.adapter is None:
        raise bad_field("adapter", "start needs one: task@vN-sha8")
    return told


def _allow(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        allow = [(b"allow", method.encode())]
        raise Refused(405, f"{scope['path']}: allowed: {method}", code="method_not_allowed", headers=allow)


def _from_here(headers: Headers) -> None:
    """Without keys, refuse another host's name: by one that leads here a page in a browser could steer rollouts."""
    host = headers.get(b"host", b"").decode("latin-1")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name.lower() not in _LOOPBACK:
        raise Refused(403, f"host: {host!r}; without API keys allowed: {', '.join(sorted(_LOOPBACK))}", param="host")


async def _send(send: Send, status: int, value: Any) -> None:
    await send_bytes(send, status, orjson.dumps(value, option=orjson.OPT_UTC_Z))
