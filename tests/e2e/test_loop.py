"""One real turn of the loop through `ratchet up`: real broker, ClickHouse, vLLM and model; killed, stopped, resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from ratchet.infra.embedded.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.connected]

CONFIG = """
gateway_port = {gateway}
api_port = {api}
flush_interval_s = 0.3
control_interval_s = 0.5

[embedded]
kafka_port = {kafka}
clickhouse_port = {clickhouse}
vllm_port = {vllm}

[tasks.support]
system_prompt = "Repeat."
completion = "says-something"
evaluation = "heldout.jsonl"
max_tokens = 8
checks = [{{ name = "says-something", kind = "length", min = 1 }}]
pairing = {{ holdout = 0.0 }}
judge = {{ fraction = 0.2 }}
retraining = {{ min_new_pairs = 8, cooldown_s = 3600 }}
training = {{ max_length = 64 }}

[tasks.support.rollout]
gates = [{{ metric = "completion", margin = 0.9, min_n = 2, min_users = 1, max_n = 40, alpha = 0.2 }}]
stages = [
    {{ name = "shadow", mirror_bp = 10000, min_n = 2 }},
    {{ name = "50%", weight_bp = 5000, min_n = 2 }},
    {{ name = "100%", weight_bp = 10000, min_n = 2 }},
]
"""


class Loop:
    """A `ratchet up` in a folder of its own, and a user's view of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in ("gateway", "api", "kafka", "clickhouse", "vllm")}
        (folder / "ratchet.toml").write_text(CONFIG.format(**self.ports))
        question = {"id": "q", "messages": [{"role": "user", "content": "held out"}]}
        (folder / "heldout.jsonl").write_text(json.dumps(question) + "\n")
        self.gateway = f"http://127.0.0.1:{self.ports['gateway']}"
        self.env = dict(os.environ) | {"RATCHET_CONFIG": str(folder / "ratchet.toml")}
        self.process: subprocess.Popen[bytes] | None = None
        self.asked = 0

    def up(self) -> None:
        """Start everything and return when the gateway is ready."""
        with (self.folder / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ratchet.services.cli.main", "up"], env=self.env, stderr=log, stdout=log
            )
        self.wait("the gateway", self.ready, 240)

    def ready(self) -> bool:
        """Whether the gateway answers that it is ready; fails at once when `up` has ended."""
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "up.log").read_text()
        try:
            return httpx.get(f"{self.gateway}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def down(self) -> int:
        """Press Ctrl-C and wait for the end."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(90)

    def wait(self, what: str, look: Callable[[], Any], limit_s: float = 120) -> Any:
        """Poll until ``look`` gives something true."""
        deadline = time.monotonic() + limit_s
        while not (seen := look()):
            assert time.monotonic() < deadline, f"{what} not within {limit_s} s\n" + self.logs()
            time.sleep(0.3)
        return seen

    def logs(self) -> str:
        """The ends of all logs, for a failure's message."""
        files = [self.folder / "up.log", *sorted((self.folder / ".ratchet/logs").glob("*.log"))]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def cli(self, *arguments: str) -> str:
        """Run a command beside it."""
        argv = [sys.executable, "-m", "ratchet.services.cli.main", *arguments]
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logs()}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Run a reading command and take its JSON."""
        return json.loads(self.cli(*arguments, "--json"))

    def ask(self, feedback: str | None = None) -> httpx.Headers:
        """One request of one user through the plain client; with ``feedback`` a correction."""
        self.asked += 1
        client = OpenAI(base_url=f"{self.gateway}/v1", api_key="none")
        raw = client.chat.completions.with_raw_response.create(
            model="support",
            messages=[{"role": "user", "content": f"question {self.asked}"}],
            max_tokens=6,
            user=f"user-{self.asked}",
        )
        assert raw.parse().choices[0].message.content is not None
        if feedback is not None:
            body = {
                "task": "support",
                "inference_id": raw.headers["x-ratchet-inference-id"],
                "kind": "correction",
                "value": f"{feedback} {self.asked}",
            }
            assert httpx.post(f"{self.gateway}/v1/feedback", json=body).status_code == 202
        return httpx.Headers(dict(raw.headers))

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """What ClickHouse answers: for polling, since every command is a process that takes a core while it starts."""
        url = f"http://127.0.0.1:{self.ports['clickhouse']}"
        return [json.loads(line) for line in httpx.post(url, content=f"{sql} FORMAT JSONEachRow").text.splitlines()]

    def count(self, view: str) -> int:
        """How many events a documented view gives."""
        return int(self.rows(f"SELECT count() AS n FROM ratchet.{view}")[0]["n"])

    def table(self) -> Any:
        """The newest routing table of the task; None before there is one."""
        newest = self.rows("SELECT state FROM ratchet.rollouts ORDER BY version DESC LIMIT 1")
        return json.loads(newest[0]["state"]) if newest else None

    def child(self, words: str) -> int:
        """The process id of a child, by its command line."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    environment = (folder / "environ").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if words in command and f"RATCHET_CONFIG={self.folder}" in environment and "python" in command:
                    return int(folder.name)
        raise AssertionError(f"no child runs {words!r}")

    def alive(self) -> list[str]:
        """Command lines of processes that still work for this folder."""
        found = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) != os.getpid():
                try:
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                except OSError:
                    continue
                if str(self.folder) in command or f":{self.ports['kafka']}" in command:
                    found.append(command)
        return found


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """`ratchet up` in an empty folder."""
    running = Loop(tmp_path_factory.mktemp("loop"))
    try:
        running.up()
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.down()


def test_the_loop_turns_is_killed_stopped_and_resumed(loop: Loop) -> None:
    """From corrections to a promoted adapter, through a kill -9, a stop in mid-rollout and a start, with no event lost.

    One test, because each step stands on the one before.
    """
    # every command works beside it
    assert all(finding["ok"] for finding in loop.json("doctor")), loop.cli("doctor")
    assert httpx.get(f"{loop.gateway}/v1/models").json()["data"][0]["id"] == "support"

    # traffic with corrections; ingest is killed in the middle of it
    first = [loop.ask(feedback="the right answer is") for _ in range(5)]
    assert {(one["x-ratchet-adapter"], one["x-ratchet-stage"]) for one in first} == {("base", "stable")}
    os.kill(loop.child("consume ingest"), signal.SIGKILL)
    for _ in range(5):
        loop.ask(feedback="the right answer is")
    loop.wait("ten inferences", lambda: loop.count("inferences") == 10)
    loop.wait("ten corrections", lambda: loop.count("feedback") == 10)
    assert (loop.folder / "up.log").read_text().count("ingest was killed by SIGKILL") == 1

    # the trigger fires by itself, DPO trains, the adapter is evaluated and registered
    loop.wait("a registered adapter", lambda: loop.count("adapters WHERE status = 'registered'"), 240)
    (adapter,) = (one for one in loop.json("adapters", "list") if one["status"] == "registered")
    pairs = loop.json("pairs")
    assert pairs["built"] == 10
    shown = loop.json("adapters", "show", adapter["name"])
    assert shown["weights_sha256"].startswith(adapter["name"].rpartition("-")[2])
    assert shown["evaluation"]["completion"]["n"] == 1

    # its rollout begins in shadow, and everything is stopped there
    loop.wait("a rollout in shadow", lambda: (now := loop.table()) and now["stage"] == "shadow")
    (before,) = loop.json("rollout", "status")
    assert before["stage"] == "shadow"
    assert loop.down() == 0
    loop.wait("the end of every child", lambda: not loop.alive(), 20)

    # started again: the same rows, the same rollout, the same stage
    loop.up()
    assert (loop.count("inferences"), loop.count("feedback")) == (10, 10)
    (after,) = loop.json("rollout", "status")
    assert (after["rollout_id"], after["stage"], after["candidate"]) == (
        before["rollout_id"],
        "shadow",
        adapter["name"],
    )

    # traffic takes it through its stages; the canary serves some users before it serves all
    stages: list[str] = []

    def promoted() -> bool:
        stages.append(loop.ask()["x-ratchet-stage"])
        return bool(loop.table()["status"] == "promoted")

    loop.wait("the promotion", promoted, 180)
    assert loop.json("rollout", "status")[0]["status"] == "promoted"
    assert "canary" in stages
    assert loop.ask()["x-ratchet-adapter"] == adapter["name"]

    # a person takes it back, and after another stop and start that still holds
    loop.cli("rollout", "undo", "support", "--why", "the test says so")
    loop.wait("the base model again", lambda: loop.ask()["x-ratchet-adapter"] == "base", 20)
    # the example of the README runs against it
    example = Path(__file__).parents[2] / "examples" / "ask.py"
    done = subprocess.run(
        [sys.executable, str(example)],
        env=loop.env | {"GATEWAY": loop.gateway},
        capture_output=True,
        text=True,
        timeout=60,
    )
    loop.asked += 1
    assert "served by base in stage stable" in done.stdout, done.stderr
    assert "0 feedback left, 1 accepted" in done.stdout, done.stdout + done.stderr

    loop.wait("every inference", lambda: loop.count("inferences") == loop.asked)
    assert loop.count("shadows") > 0
    assert loop.count("hourly") > 0
    assert loop.count("hourly_scores") > 0
    assert loop.count("scores") >= loop.asked


def test_a_taken_port_is_one_sentence(loop: Loop) -> None:
    """A second `ratchet up` on the same ports ends with a sentence and status 1, not a traceback."""
    argv = [sys.executable, "-m", "ratchet.services.cli.main", "up"]
    done = subprocess.run(argv, env=loop.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ratchet: gateway_port ")
    assert "Traceback" not in done.stderr


CONVERSATIONS = [
    [{"role": "user", "content": "Where is order 4711?"}],
    [{"role": "system", "content": "Answer in JSON."}, {"role": "user", "content": "  spaces, \ttabs\n\nand lines "}],
    [
        {"role": "system", "content": "Kurz und höflich."},
        {"role": "user", "content": "Grüße 👋 — 東京?"},
        {"role": "assistant", "content": "Ja."},
        {"role": "user", "content": "<|im_end|> and <|im_start|> as a user writes them"},
    ],
]


def assert_training_sees_what_is_served(vllm: str, base_model: Path) -> None:
    """Compare the token ids of training's rows with those that a model server makes of the same messages."""
    from transformers import AutoTokenizer

    from ratchet.trainers.training.encoding import encode_pair
    from ratchet.trainers.training.job import PreferenceRow

    tokenizer = AutoTokenizer.from_pretrained(base_model)
    served = httpx.get(f"{vllm}/v1/models").json()["data"][0]["id"]

    def tokens(messages: list[dict[str, str]], **how: bool) -> list[int]:
        answer = httpx.post(f"{vllm}/tokenize", json={"model": served, "messages": messages, **how}, timeout=60)
        assert answer.status_code == 200, answer.text
        found: list[int] = answer.json()["tokens"]
        return found

    for prompt in CONVERSATIONS:
        right, wrong = ({"role": "assistant", "content": text} for text in ('{"a": [1, 2]}', "no, ünlike"))
        pair = encode_pair(
            tokenizer, PreferenceRow.model_validate({"prompt": prompt, "chosen": [right], "rejected": [wrong]})
        )
        assert tokens(prompt, add_generation_prompt=True) == pair.prompt_ids
        for answer, ids in ((right, pair.chosen_ids), (wrong, pair.rejected_ids)):
            whole = tokens([*prompt, answer], add_generation_prompt=False)
            learned = pair.prompt_ids + ids
            assert whole[: len(learned)] == learned
            assert tokenizer.decode(whole[len(learned) :]) == "\n"  # serving stops before it


def test_training_sees_the_tokens_that_are_served(loop: Loop) -> None:
    """vLLM's own rendering of a conversation is, token by token, what training encodes."""
    assert_training_sees_what_is_served(
        f"http://127.0.0.1:{loop.ports['vllm']}", loop.folder / ".ratchet/models/smollm2-135m-instruct"
    )
