"""`make bench-rollback`: how long after an abort the last user still meets the bad adapter, and until that is known.

Two gateway processes before two instant model servers, on the embedded broker, get a steady load from OpenAI's own
client. Flip by flip a canary at 50% is published, serves for a while, and is aborted; each has an adapter of its own.
A flip's clock starts at the aborting table's ``at``, which is taken just before it is published. It is read where the
truth lies: the last arrival of a request for the bad adapter at a model server (``switch``), the first answer by stable
to a user who had the canary (``first_stable``), and a reader of ``ratchet.gateway`` who has heard from both gateways
(``acknowledged``). Seconds. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ratchet.infra.clock import new_id, now
from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.tail import Tail
from ratchet.schemas.events import Event
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.schemas.topics import GATEWAY

PARTS = str(Path(__file__).with_name("rollback_parts.py"))
CONFIG = """
home = "{folder}/home-{port}"
base_model = "bench"
kafka_bootstrap = "{bootstrap}"
kafka_idempotence = false
vllm_urls = {upstreams}
gateway_port = {port}
[tasks.bench]
"""
STABLE = "bench@v1-aaaaaaaa"
GATEWAYS = 2
PATIENCE_S = 60.0


def bad(flip: int) -> str:
    """The adapter of one flip."""
    return f"bench@v{flip + 2}-bbbbbbbb"


@dataclass
class Heard:
    """When each gateway's word of each table's version was first heard."""

    versions: dict[str, dict[int, float]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, event: Event) -> None:
        """Note an acknowledgement; in the tail's thread."""
        if isinstance(event, Gateway) and "bench" in event.tables:
            with self.changed:
                self.versions.setdefault(event.gateway, {}).setdefault(event.tables["bench"], time.time())
                self.changed.notify_all()

    def by_all(self, version: int) -> float:
        """Wait for the last gateway's word of a version; when that was."""
        with self.changed:

            def all_said() -> bool:
                return sum(version in said for said in self.versions.values()) == GATEWAYS

            if not self.changed.wait_for(all_said, PATIENCE_S):
                sys.exit(f"version {version} was not acknowledged by {GATEWAYS} gateways: {self.versions}")
            return max(said[version] for said in self.versions.values())


def table(version: int, flip: int, *, canary: bool, rollout_id: str) -> Rollout:
    """A canary at 50%, or its abort."""
    at = now()
    return Rollout(
        id=new_id(),
        at=at,
        task="bench",
        rollout_id=rollout_id,
        version=version,
        status="running" if canary else "aborted",
        stage="50%" if canary else "",
        stage_started_at=at,
        stable=STABLE,
        candidate=bad(flip) if canary else None,
        weight_bp=5_000 if canary else 0,
        salt=rollout_id,
        action="start" if canary else "abort",
    )


def flips(bootstrap: str, heard: Heard, count: int, serve_s: float, rest_s: float) -> list[tuple[float, float]]:
    """Flip there and back ``count`` times: when each abort was decided, and when all had acknowledged it."""
    publisher = KafkaPublisher(bootstrap, False, "bench-rollback")
    done: list[tuple[float, float]] = []

    def publish(event: Rollout) -> float:
        publisher.publish(event)
        if publisher.flush(PATIENCE_S):
            sys.exit("the broker does not take the table")
        return heard.by_all(event.version)

    for flip in range(count):
        rollout_id = new_id()
        publish(table(2 * flip + 1, flip, canary=True, rollout_id=rollout_id))
        time.sleep(serve_s)
        abort = table(2 * flip + 2, flip, canary=False, rollout_id=rollout_id)
        done.append((abort.at.timestamp(), publish(abort)))
        time.sleep(rest_s)
    publisher.close()
    return done


def read(log: Path) -> list[list[str]]:
    """A part's log, line by line; a last line that is not whole is left out."""
    return [line.split() for line in log.read_text().split("\n")[:-1]]


def switches(logs: Sequence[Path], decided: Sequence[float]) -> list[float]:
    """Seconds from each decision to the last arrival of a request for its adapter."""
    last: dict[str, float] = {}
    for at, adapter in (line for log in logs for line in read(log)):
        last[adapter] = max(last.get(adapter, 0.0), float(at))
    missing = [bad(flip) for flip in range(len(decided)) if bad(flip) not in last]
    if missing:
        sys.exit(f"no canary served: {missing}")
    return [max(0.0, last[bad(flip)] - at) for flip, at in enumerate(decided)]


def first_stable(answers: list[list[str]], decided: Sequence[float]) -> list[float]:
    """Seconds from each decision to the first answer by stable to a user who had had that flip's canary."""
    found = []
    for flip, at in enumerate(decided):
        had = {user for _, adapter, _, user in answers if adapter == bad(flip)}
        seconds = [float(answer[0]) - at for answer in answers if answer[1] == STABLE and answer[3] in had]
        later = [one for one in seconds if one > 0]
        if not later:
            sys.exit(f"flip {flip}: nobody who had the canary came again; more --rate or --rest")
        found.append(min(later))
    return found


def quantile(values: Sequence[float], share: float) -> float:
    """An order statistic, in seconds to the millisecond."""
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))], 4)


def until(what: Callable[[], bool], why: str) -> None:
    """Wait for it."""
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > deadline:
            sys.exit(why)
        time.sleep(0.1)


def answers_at(url: str) -> bool:
    """Whether a server there says 200."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def main() -> None:
    """Run the flips and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, over all gateways")
    parser.add_argument("--serve", type=float, default=0.7, help="seconds that a canary serves")
    parser.add_argument(
        "--rest", type=float, default=1.2, help="seconds between an acknowledged abort and the next canary"
    )
    parser.add_argument("--kafka", help="a running broker, host:port; the embedded one by default")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-rollback-"))
    names = ["bench", STABLE, *(bad(flip) for flip in range(given.flips))]
    logs = [folder / f"upstream-{number}.requests" for number in range(2)]
    kafka_port, ports, served = free_port(), [free_port() for _ in range(GATEWAYS)], [free_port() for _ in logs]
    bootstrap = given.kafka or f"127.0.0.1:{kafka_port}"
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    upstreams = [f"http://127.0.0.1:{port}" for port in served]
    heard = Heard()
    with Supervisor() as supervisor:
        if not given.kafka:
            broker = Child("broker", broker_command(kafka_port), folder / "broker.log", BrokerProbe(bootstrap))
            supervisor.start(broker)
        ensure_topics(bootstrap)
        for port, log, url in zip(served, logs, upstreams, strict=True):
            argv = [sys.executable, PARTS, "upstream", str(port), str(log), *names]
            ready = lambda url=url: answers_at(f"{url}/v1/models")  # noqa: E731
            supervisor.start(Child(f"upstream-{port}", argv, log.with_suffix(".log"), ready))
        for port, url in zip(ports, urls, strict=True):
            config = folder / f"ratchet-{port}.toml"
            config.write_text(
                CONFIG.format(folder=folder, port=port, bootstrap=bootstrap, upstreams=json.dumps(upstreams))
            )
            argv = ["env", f"RATCHET_CONFIG={config}", sys.executable, "-m", "ratchet.services.cli.main", "gateway"]
            ready = lambda url=url: answers_at(f"{url}/readyz")  # noqa: E731
            supervisor.start(Child(f"gateway-{port}", argv, folder / f"gateway-{port}.log", ready))
        tail = Tail(bootstrap, GATEWAY, heard.take)
        tail.start()
        answered = folder / "client.answers"
        argv = [sys.executable, PARTS, "client", str(given.rate), str(answered), *urls]
        client = Child("client", argv, folder / "client.log", lambda: answered.exists() and len(read(answered)) > 20)
        supervisor.start(client)
        done = flips(bootstrap, heard, given.flips, given.serve, given.rest)
        tail.close()
    decided = [at for at, _ in done]
    answers = read(answered)
    switch, stable = switches(logs, decided), first_stable(answers, decided)
    acknowledged = [said - at for at, said in done]
    for name, values in (("switch", switch), ("acknowledged", acknowledged), ("first stable", stable)):
        low, high = min(values), max(values)
        print(f"{name}: median {statistics.median(values):.3f} s, {low:.3f} to {high:.3f} s over {len(values)} flips")
    figures = {
        "switch_seconds_p50": quantile(switch, 0.5),
        "switch_seconds_p99": quantile(switch, 0.99),
        "failed_requests": sum(answer[1] == "-" for answer in answers),
        "decision_to_first_stable_s": quantile(stable, 0.5),
        "acknowledged_p50": quantile(acknowledged, 0.5),
        "acknowledged_p99": quantile(acknowledged, 0.99),
        "flips": len(done),
        "requests": len(answers),
        "fell_back": sum(answer[2] == "fallback" for answer in answers),
        "load_average": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
