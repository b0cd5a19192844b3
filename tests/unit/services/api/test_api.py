"""The operators' API: who may, what is asked, and what each answer of the controller becomes."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.infra.keys import KeyFile, Keyring
from ratchet.schemas.errors import BrokerError, RolloutError, StoreError
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import Operator, Rollout
from ratchet.services.api.app import VERBS, Api, Desk, Instruction
from ratchet.services.gateway.door import Door
from ratchet.services.operator.ask import Answer
from ratchet.services.rules.since import instant

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID = uuid7(int(NOW.timestamp() * 1000), bytes(10))
ADAPTER = "support@v1-00000000"
TABLE = Rollout.model_validate(
    {
        "id": ID, "at": NOW, "task": "support", "rollout_id": ID, "version": 3, "status": "paused", "stage": "5%",
        "stage_started_at": NOW, "stable": "base", "candidate": ADAPTER, "action": "pause", "actor": "ann",
        "reason": "night",
    }
)  # fmt: skip


class Office:
    """A desk that remembers what it was asked, and an API on it."""

    def __init__(self, ring: Keyring | None = None) -> None:
        self.asked: list[tuple[str, str, Instruction]] = []
        self.table: Rollout | None = TABLE
        self.trouble: Exception | None = None
        self.at = ""
        desk = Desk(self.look, self.why, lambda task: [{"version": 1, "at": NOW}], self.ask)
        transport = httpx.ASGITransport(Api(desk, Door(ring, lambda _: None, time.monotonic, 1.0)))
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081")

    def look(self, task: str | None) -> list[dict[str, Any]]:
        """The standings."""
        if self.trouble:
            raise self.trouble
        return [{"task": task or "support", "at": NOW}]

    def why(self, task: str, at: str) -> dict[str, Any]:
        """The account."""
        self.at = at
        return {"task": task, "at": instant(at, NOW) if at else NOW}

    def ask(self, task: str, verb: str, told: Instruction) -> Answer:
        """The controller's answer."""
        if self.trouble:
            raise self.trouble
        self.asked.append((task, verb, told))
        asked = Operator.model_validate({"id": ID, "at": NOW, "task": task, "verb": verb} | told.model_dump())
        return Answer(asked, 15.0, self.table)

    async def post(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        answer = await self.http.post(f"/v1/rollouts/{path}", json=body or {}, headers=headers)
        return answer.status_code, answer.json()

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        answer = await self.http.get(path, headers=headers)
        return answer.status_code, answer.json()


async def test_reading() -> None:
    """All tasks, one, why and log, with instants as RFC 3339 says."""
    office = Office()
    assert await office.get("/v1/rollouts") == (200, [{"task": "support", "at": "2026-11-01T12:00:00Z"}])
    assert await office.get("/v1/rollouts/sales") == (200, {"task": "sales", "at": "2026-11-01T12:00:00Z"})
    assert await office.get("/v1/rollouts/support/log") == (200, [{"version": 1, "at": "2026-11-01T12:00:00Z"}])
    assert (await office.get("/v1/rollouts/support/why"))[1]["at"] == "2026-11-01T12:00:00Z"
    assert (await office.get("/v1/rollouts/support/why?at=2h%20ago"))[1]["at"] == "2026-11-01T10:00:00Z"
    found = await office.get("/v1/rollouts/support/why?at=2026-11-01T12:00:00+01:00")
    assert found == (200, {"task": "support", "at": "2026-11-01T11:00:00Z"})
    assert await office.get("/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize("verb", VERBS)
async def test_each_verb_reaches_the_controller(verb: str) -> None:
    """Its answer is the routing table; who asks is what the body says, or that it came by HTTP."""
    office = Office()
    body = {"adapter": ADAPTER} if verb == "start" else {}
    status, table = await office.post(f"support/{verb}", body | {"who": "ann", "why": "night"})
    assert (status, table["version"], table["reason"]) == (200, 3, "night")
    assert (await office.post(f"support/{verb}", body))[0] == 200
    assert [(task, asked, told.who) for task, asked, told in office.asked] == [
        ("support", verb, "ann"), ("support", verb, "http"),
    ]  # fmt: skip


async def test_what_a_verb_takes_besides() -> None:
    """`full` is promote's, an adapter start's, retry's and undo's."""
    office = Office()
    assert (await office.post("support/promote", {"full": True}))[0] == 200
    assert (await office.post("support/undo", {"adapter": ADAPTER}))[0] == 200
    assert [(told.full, told.adapter) for _, _, told in office.asked] == [(True, None), (False, ADAPTER)]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("support/abort", {"full": True}, 400, "full: abort takes none; allowed with: promote"),
        ("support/pause", {"adapter": ADAPTER}, 400, "adapter: pause takes none; allowed with: retry, start, undo"),
        ("support/start", {}, 400, "adapter: start needs one: task@vN-sha8"),
        ("support/abort", {"reason": "x"}, 400, "reason: Extra inputs are not permitted"),
        ("support/abort", {"why": "\x1b[2J"}, 400, r"why: String should match pattern '^[^\x00-\x1f\x7f-\x9f]*$'"),
        ("support/abort", ["x"], 400, "body: allowed: a JSON object"),
        ("support/stop", {}, 405, "/v1/rollouts/support/stop: allowed: GET"),
        ("Support/abort", {}, 404, "'Support' is no task's name"),
    ],
)
async def test_a_wrong_request_is_named(path: str, body: Any, status: int, said: str) -> None:
    """The field, and what is allowed; nothing reaches the controller."""
    office = Office()
    got, answer = await office.post(path, body)
    assert (got, answer["error"]["message"]) == (status, said)
    assert office.asked == []


async def test_a_refusal_is_409_and_silence_504() -> None:
    """The controller's reason; or that nobody answered and what becomes of the instruction."""
    office = Office()
    office.table = TABLE.model_copy(update={"action": "refuse", "reason": "nothing to pause"})
    status, body = await office.post("support/pause")
    assert (status, body["error"]["message"], body["error"]["code"]) == (409, "nothing to pause", "refused")
    office.table = None
    status, body = await office.post("support/pause")
    assert status == 504
    assert body["error"]["message"] == (
        "no controller answered within 15 s; pause stays on the topic and is followed when one runs"
    )


@pytest.mark.parametrize(
    ("trouble", "status"),
    [(RolloutError("task 'x' has had no rollout yet"), 404), (StoreError("ClickHouse: away"), 503)],
)
async def test_what_is_not_there_and_what_is_away(trouble: Exception, status: int) -> None:
    """404 for a task without a rollout, 503 while ClickHouse or Kafka is away."""
    office = Office()
    office.trouble = trouble
    got, body = await office.get("/v1/rollouts/x")
    assert (got, body["error"]["message"]) == (status, str(trouble))
    office.trouble = BrokerError("Kafka: away")
    assert (await office.post("x/abort"))[0] == 503


async def test_an_instant_that_is_none() -> None:
    """The value and what is allowed."""
    status, body = await Office().get("/v1/rollouts/support/why?at=tomorrow")
    assert status == 400
    assert body["error"]["message"].startswith("at: 'tomorrow'; allowed: 30m")


async def test_other_paths_and_methods() -> None:
    """404 and 405, with what there is."""
    office = Office()
    assert (await office.get("/v1/models"))[0] == 404
    assert (await office.get("/v1/rollouts/support/other"))[1]["error"]["message"].endswith(
        "behind a task: why, log, start, retry, promote, pause, resume, abort, undo"
    )
    assert (await office.get("/v1/rollouts/support/abort"))[0] == 405
    assert (await office.get("/v1/rollouts//why"))[0] == 404


async def test_a_page_in_a_browser_cannot_steer(tmp_path: Path) -> None:
    """Without keys another host's name is refused, and always a body that a form could send."""
    office = Office()
    assert (await office.get("/v1/rollouts", host="evil.example:8081"))[0] == 403
    assert (await office.get("/v1/rollouts", host="localhost:8081"))[0] == 200
    assert (await office.get("/v1/rollouts", host="[::1]:8081"))[0] == 200
    form = await office.http.post("/v1/rollouts/support/abort", content=b"{}", headers={"content-type": "text/plain"})
    assert form.status_code == 415
    assert office.asked == []


async def test_with_keys_the_keys_name_is_recorded(tmp_path: Path) -> None:
    """`admin` alone gets in, from any host's name; who asked is the key's name and nothing else."""
    file = KeyFile(tmp_path / "keys.json")
    _, admin = file.create("oncall", "default", ["admin"], NOW)
    _, app = file.create("app", "default", ["infer"], NOW)
    office = Office(Keyring(file))
    assert (await office.get("/v1/rollouts"))[0] == 401
    assert (await office.get("/v1/rollouts", authorization=f"Bearer {app}"))[0] == 403
    bearer = {"authorization": f"Bearer {admin}", "host": "ops.example"}
    assert (await office.post("support/abort", {"why": "errors"}, **bearer))[0] == 200
    assert [told.who for _, _, told in office.asked] == ["oncall"]
    status, body = await office.post("support/abort", {"who": "bob"}, **bearer)
    assert (status, body["error"]["param"]) == (400, "who")
