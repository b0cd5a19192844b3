"""A task's own edge for tests: a real nginx as infra/deploy/nginx ships it, the arms' servers, and the exporter."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from parts import PATIENCE_S, JsonHandler, wait_for

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.ports import answers, free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import Tail
from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.schemas.topics import GATEWAY

SHIPPED = Path(__file__).resolve().parents[1] / "infra" / "deploy" / "nginx"
# what `make test` unpacks out of Debian's package
_UNPACKED = Path(os.environ.get("RATCHET_TEST_NGINX", Path(sys.prefix) / "nginx"))
STABLE, CANDIDATE = "support@v1-0a1b2c3d", "support@v2-4e5f6a7b"
ROLLOUT_ID = "01936f3e-0000-7000-8000-000000000001"
_OWN = "pid {file}.pid;\nerror_log {file}.log;\n"
_OWN_HTTP = "access_log off;\n" + "".join(
    f"{kind}_temp_path {{folder}}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
)


def nginx_program() -> str:
    """An nginx that runs; skips where there is none."""
    program = shutil.which("nginx") or str(_UNPACKED / "usr" / "sbin" / "nginx")
    if not Path(program).is_file():
        pytest.skip(f"no nginx on the path and none unpacked in {_UNPACKED} (make test does it)")
    if (tried := subprocess.run([program, "-v"], capture_output=True, text=True)).returncode:
        pytest.skip(f"the unpacked nginx does not run: {tried.stderr.strip()}; install it")
    return program


class ArmServer:
    """One arm's model server: answers with its own name, and remembers when and for which user it was asked."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.asked: list[tuple[float, str, str]] = []
        """When (seconds since 1970), the user, and the adapter that the edge named."""
        self.status = 200
        arm = self

        class Handler(JsonHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                arm.asked.append((time.time(), body["user"], self.headers["x-ratchet-adapter"]))
                self.reply({"arm": name, "user": body["user"]}, arm.status)

        self._server = ThreadingHTTPServer((host, port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the port; later calls are refused."""
        self._server.shutdown()
        self._server.server_close()


@dataclass
class EdgePlace:
    """The edge of task ``support`` in ``folder``, with its arms, on a broker."""

    folder: Path
    bootstrap: str
    url: str
    stable: ArmServer
    candidate: ArmServer
    publisher: KafkaPublisher
    said: list[Gateway] = field(default_factory=list)
    version: int = 0
    failed: int = 0
    """Requests whose connection ended without an answer."""

    def publish(self, **more: Any) -> Rollout:
        """The next routing table of the one rollout; in canary, unless said otherwise."""
        self.version += 1
        fields = {
            "id": new_id(), "at": now(), "task": "support", "rollout_id": ROLLOUT_ID, "version": self.version,
            "status": "running", "stage": "canary", "stage_started_at": now(), "stable": STABLE,
            "candidate": CANDIDATE, "salt": ROLLOUT_ID, "action": "advance",
        }  # fmt: skip
        table = Rollout.model_validate(fields | more)
        self.publisher.publish(table)
        assert self.publisher.flush(PATIENCE_S) == 0
        return table

    def hear(self, event: Event) -> None:
        """Take in what the edge says of itself."""
        assert isinstance(event, Gateway)
        self.said.append(event)

    def acknowledged(self) -> None:
        """Wait until the edge said that the newest table is in force."""
        wait_for(lambda: bool(self.said) and self.said[-1].tables == {"support": self.version})

    def argv(self, *more: str) -> list[str]:
        """The exporter's command line."""
        export = ["rollout", "export", "support", "--format", "nginx", "--out", str(self.folder / "support.conf")]
        return [sys.executable, "-m", "ratchet.services.cli.main", *export, *more]

    def env(self) -> dict[str, str]:
        """What the exporter's process is told of its surroundings."""
        own = {"RATCHET_CONFIG": str(self.folder / "ratchet.toml"), "RATCHET_KAFKA_BOOTSTRAP": self.bootstrap}
        return os.environ | own | {"RATCHET_KAFKA_IDEMPOTENCE": "false"}

    async def ask(self, users: Iterable[str], answers: list[httpx.Response] | None = None) -> list[httpx.Response]:
        """One request of each user, eight at once; ``answers`` fills up as they come."""
        waiting = iter(users)
        answers = [] if answers is None else answers

        async def client() -> None:
            async with httpx.AsyncClient(trust_env=False, verify=False, timeout=PATIENCE_S) as http:
                for user in waiting:
                    body = {"model": "support", "user": user, "messages": [{"role": "user", "content": "hello"}]}
                    headers = {"x-ratchet-user": user, "x-ratchet-adapter": "forged@v9-00000000"}
                    try:
                        answer = await http.post(f"{self.url}/v1/chat/completions", json=body, headers=headers)
                    except httpx.TransportError:
                        self.failed += 1
                    else:
                        answers.append(answer)

        await asyncio.gather(*(client() for _ in range(8)))
        return answers

    async def cohort(self, users: Iterable[str]) -> set[str]:
        """Who of them gets the candidate's answer, by asking."""
        answers = await self.ask(users)
        self.stages(answers)
        return {answer.json()["user"] for answer in answers if answer.json()["arm"] == "candidate"}

    @asynccontextmanager
    async def load(self, users: Sequence[str]) -> AsyncIterator[list[httpx.Response]]:
        """Ask for all of them in turn, over and over, while the block runs; what was answered so far."""
        answers: list[httpx.Response] = []
        over = asyncio.Event()
        endless = itertools.takewhile(lambda _: not over.is_set(), itertools.cycle(users))
        asking = asyncio.create_task(self.ask(endless, answers=answers))
        try:
            yield answers
        finally:
            over.set()
            await asking

    def stages(self, answers: list[httpx.Response]) -> Counter[str]:
        """How many answers came in each stage; nobody was left without one, and all of them are good."""
        assert self.failed == 0
        assert {answer.status_code for answer in answers} <= {200}
        return Counter(answer.headers["x-ratchet-stage"] for answer in answers)


@contextmanager
def edge_place(folder: Path, bootstrap: str, server: Callable[[str], str] = str) -> Iterator[EdgePlace]:
    """Export the file of a task without a table, start nginx on it, and the exporter that follows the topic.

    ``server`` may change the shipped ``server.conf``.
    """
    program = nginx_program()
    port, arms = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("ratchet.toml").write_text(
        f'[tasks.support.edge]\nbase = ["127.0.0.1:{arms}"]\nupstreams = ["127.0.0.{{number}}:{arms}"]\n'
    )
    for name in ("nginx.conf", "check.conf"):
        text = (SHIPPED / name).read_text().replace("http {", f"http {{\n{_OWN_HTTP.format(folder=folder)}")
        folder.joinpath(name).write_text(_OWN.format(file=folder / name) + text)
    served = (SHIPPED / "server.conf").read_text().replace("listen 8080", f"listen 127.0.0.1:{port}")
    folder.joinpath("server.conf").write_text(server(served))
    stable, candidate = ArmServer("stable", "127.0.0.1", arms), ArmServer("candidate", "127.0.0.2", arms)
    publisher = KafkaPublisher(bootstrap, False, "test")
    url = f"http://127.0.0.1:{port}"
    place = EdgePlace(folder, bootstrap, url, stable, candidate, publisher)
    tail = Tail(bootstrap, GATEWAY, place.hear)
    tail.start()
    nginx = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    check = f"{program} -t -p {folder} -c {folder / 'check.conf'}"
    confirm = f"{url}/ratchet/table"
    following = ["--follow", "--check", check, "--reload", f"{' '.join(nginx)} -s reload", "--confirm", confirm]
    try:
        subprocess.run(place.argv(), env=place.env(), check=True, capture_output=True, timeout=60)
        with Supervisor(grace_s=5.0) as supervisor:
            supervisor.start(
                Child("nginx", [*nginx, "-g", "daemon off;"], folder / "nginx.log", lambda: answers("127.0.0.1", port))
            )
            supervisor.start(
                Child(
                    "exporter", place.argv(*following), folder / "exporter.log", lambda: bool(place.said), place.env()
                )
            )
            yield place
    finally:
        tail.close()
        publisher.close()
        stable.stop()
        candidate.stop()
