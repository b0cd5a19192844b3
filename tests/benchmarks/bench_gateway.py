"""`make bench-gateway`: Ratchet's gateway with its logging on, beside a bare pass-through and LiteLLM's proxy.

All stand before one instant model server and get the same load, one after the other, round by
round. Every round is a server of its own, warmed up first. What Ratchet answered and what is on
its topic is compared at the end. The last line of output is one JSON object; ``added_*`` is what
a request takes longer through Ratchet than through the bare pass-through without logging, over one
connection. LiteLLM's proxy is installed into an environment of its own the first time, and left
out, with a word, where that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.tail import read_all

PARTS = str(Path(__file__).with_name("gateway_parts.py"))
CONFIG = """
home = "{folder}/home"
base_model = "bench"
kafka_bootstrap = "127.0.0.1:{kafka}"
kafka_idempotence = false
vllm_urls = ["{upstream}"]
gateway_port = {port}
[tasks.bench]
"""
LITELLM_PACKAGE = "litellm[proxy]==1.108.7"
LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/bench, api_base: "{upstream}/v1", api_key: none}}
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


def litellm_command(environment: Path) -> str | None:
    """LiteLLM's proxy in its own environment, made where it is missing; None, with a word, where that fails."""
    command = environment / "bin" / "litellm"
    if command.is_file():
        return str(command)
    print(f"installing {LITELLM_PACKAGE} into {environment} (a few minutes the first time)", flush=True)
    steps = [
        [sys.executable, "-m", "venv", str(environment)],
        [str(environment / "bin" / "python"), "-m", "pip", "install", "-q", LITELLM_PACKAGE],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(environment, ignore_errors=True)
            print(f"LiteLLM is left out: `{' '.join(step[1:])}` failed: {done.stderr.strip()[-300:]}")
            return None
    return str(command)


@contextmanager
def running(argv: list[str], url: str, log: Path, env: dict[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """A server while the block lasts, once it answers: its process id, and how many requests that took."""
    with log.open("ab") as out:
        process = subprocess.Popen(argv, stdout=out, stderr=out, env=dict(os.environ) | (env or {}))
    try:
        yield process.pid, load(url, 1, 0.1, patience_s=90)["requests"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def load(url: str, connections: int, seconds: float, patience_s: float = 0.0) -> dict[str, Any]:
    """Load in a process of its own; with ``patience_s`` it is tried until every request is answered."""
    deadline = time.monotonic() + patience_s
    argv = [sys.executable, PARTS, "load", f"{url}/v1/chat/completions", str(connections), str(seconds)]
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode == 0 and not (seen := dict(json.loads(done.stdout)))["failed"]:
            return seen
        if time.monotonic() > deadline:
            sys.exit(f"{url}: {done.stdout}{done.stderr[-2000:]}")
        time.sleep(0.2)


def rss_mb(pid: int) -> float:
    """The peak resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def on_topic(bootstrap: str) -> int:
    """How many different inferences are on the topic."""
    return len({json.loads(record.value)["id"] for record in read_all(bootstrap, "ratchet.inference") if record.value})


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--litellm", type=Path, default=Path(".venv-litellm"), help="its environment")
    parser.add_argument("--no-litellm", action="store_true", help="leave LiteLLM out")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-gateway-"))
    kafka, upstream_port, port = free_port(), free_port(), free_port()
    bootstrap, upstream, url = f"127.0.0.1:{kafka}", f"http://127.0.0.1:{upstream_port}", f"http://127.0.0.1:{port}"
    config = folder / "ratchet.toml"
    config.write_text(CONFIG.format(folder=folder, kafka=kafka, upstream=upstream, port=port))
    (folder / "litellm.yaml").write_text(LITELLM.format(upstream=upstream))
    kinds: dict[str, tuple[list[str], dict[str, str]]] = {
        "bare": ([sys.executable, PARTS, "bare", str(port), upstream], {}),
        "bare_logged": ([sys.executable, PARTS, "bare", str(port), upstream, bootstrap], {}),
        "ratchet": ([sys.executable, "-m", "ratchet.services.cli.main", "gateway"], {"RATCHET_CONFIG": str(config)}),
    }
    if not given.no_litellm and (command := litellm_command(given.litellm)):
        kinds["litellm"] = ([command, "--config", str(folder / "litellm.yaml"), "--port", str(port)], {})
    busy: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    alone: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    memory, answered, stored = 0.0, 0, 0
    with Supervisor() as supervisor:
        supervisor.start(Child("broker", broker_command(kafka), folder / "broker.log", BrokerProbe(bootstrap)))
        ready = lambda: httpx.get(f"{upstream}/v1/models").is_success  # noqa: E731
        supervisor.start(
            Child("upstream", [sys.executable, PARTS, "upstream", str(upstream_port)], folder / "up.log", _calm(ready))
        )
        ensure_topics(bootstrap)
        for number in range(given.rounds):
            for kind, (argv, env) in kinds.items():
                before = on_topic(bootstrap)
                with running(argv, url, folder / f"{kind}.log", env) as (pid, asked):
                    warm = load(url, given.connections, 1.0)
                    runs = [load(url, given.connections, given.seconds), load(url, 1, given.seconds / 2)]
                    if kind == "ratchet":
                        memory = max(memory, rss_mb(pid))
                        answered += asked + warm["requests"] + sum(run["requests"] for run in runs)
                busy[kind].append(runs[0])
                alone[kind].append(runs[1])
                if kind == "ratchet":
                    stored += on_topic(bootstrap) - before
                many, one = runs
                print(
                    f"round {number + 1} {kind}: over {given.connections} connections {many['rps']:,.0f} requests/s, "
                    f"P50 {many['p50_ms']:.2f} ms, P99 {many['p99_ms']:.2f} ms; over one P50 {one['p50_ms']:.2f} ms"
                )
    print(json.dumps(figures(busy, alone) | {"rss_mb": round(memory), "events_lost": max(0, answered - stored)}))


def _calm(ready: Any) -> Any:
    def look() -> bool:
        try:
            return bool(ready())
        except httpx.HTTPError:
            return False

    return look


def figures(busy: dict[str, list[dict[str, Any]]], alone: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians over the rounds, and ratios round by round."""

    def rps(kind: str) -> float | None:
        return round(statistics.median(run["rps"] for run in busy[kind])) if busy.get(kind) else None

    def ratios(other: str) -> list[float]:
        pairs = zip(busy["ratchet"], busy.get(other, []), strict=False)
        return [own["rps"] / run["rps"] for own, run in pairs]

    def added(figure: str) -> float:
        pairs = zip(alone["ratchet"], alone["bare"], strict=True)
        return round(statistics.median(own[figure] - run[figure] for own, run in pairs), 3)

    logged, litellm = ratios("bare_logged"), ratios("litellm")
    return {
        "rps_bare": rps("bare"),
        "rps_bare_logged": rps("bare_logged"),
        "rps_ratchet": rps("ratchet"),
        "rps_litellm": rps("litellm"),
        "ratio_bare_logged": round(statistics.median(logged), 3),
        "ratio_bare_logged_range": [round(min(logged), 3), round(max(logged), 3)],
        "ratio_litellm": round(statistics.median(litellm), 1) if litellm else None,
        "added_p50_ms": added("p50_ms"),
        "added_p99_ms": added("p99_ms"),
    }


if __name__ == "__main__":
    main()
