"""The command line: light to start, and failures end in one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]


def ratchet(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    argv = [sys.executable, "-m", "ratchet.services.cli.main", *arguments]
    return subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ) | env, timeout=60, input="")


def test_help_loads_nothing_heavy() -> None:
    """`ratchet --help` imports no torch, chDB, Kafka or ClickHouse client, pandas or vLLM."""
    code = (
        "import sys; from ratchet.services.cli import main\n"
        "heavy = {'torch', 'chdb', 'confluent_kafka', 'clickhouse_connect', 'faststream', 'vllm', 'transformers',"
        " 'pandas', 'numpy', 'scipy', 'openai', 'matplotlib', 'aiohttp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("arguments", "env", "says"),
    [
        (("pairs",), {"RATCHET_CLICKHOUSE_DSN": "http://127.0.0.1:1/ratchet"}, "127.0.0.1:1"),
        (("doctor",), {"RATCHET_GATEWAY_PORT": "0"}, "gateway_port: Input should be greater than or equal to 1"),
        (("up",), {}, "no task is declared"),
        (("gateway",), {}, "tasks: none is declared"),
        (("consume", "nonsense"), {}, "consumer 'nonsense'; allowed: ingest, checks, judge, pairs"),
        (("dataset", "show", "0000"), {}, "0000"),
        (
            ("rebuild", "--from", "ratchet.gossip"),
            {},
            "no topic 'ratchet.gossip' ends up in ClickHouse; allowed",
        ),
        (("rebuild", "--from", "ratchet.score:1@noon"), {}, "'noon' is no time; allowed: RFC 3339 with a zone"),
        (("judge", "run", "nope"), {}, "task 'nope'; allowed: none is declared"),
        (("alerts", "--state", "new"), {}, "--state 'new'; allowed: open, acknowledged, resolved"),
    ],
)
def test_a_failure_is_one_sentence(arguments: tuple[str, ...], env: dict[str, str], says: str, tmp_path: Path) -> None:
    """What we foresaw ends with status 1 and a sentence that names it, without a traceback."""
    config = tmp_path / "ratchet.toml"
    config.write_text("")
    done = ratchet(*arguments, RATCHET_CONFIG=str(config), **env)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ratchet: ")
    assert says in last


def test_doctor_names_every_part(tmp_path: Path) -> None:
    """Doctor looks at each part, says what is wrong with it and what to do, and its status is 1."""
    config = tmp_path / "ratchet.toml"
    config.write_text("gateway_port = 1\nembedded = { kafka_port = 1, clickhouse_port = 1, vllm_port = 1 }")
    done = ratchet("doctor", "--json", RATCHET_CONFIG=str(config))
    findings = {finding["part"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert set(findings) == {"tasks", "disk", "kafka", "clickhouse", "vllm", "gateway"}
    assert {part for part, finding in findings.items() if finding["ok"]} == {"disk"}
    assert "ratchet.toml" in findings["tasks"]["says"]


def test_the_readme_shows_what_the_examples_do() -> None:
    """Every python block of the README stands in an example that a test runs."""
    readme = (ROOT / "README.md").read_text()
    examples = "".join(path.read_text() for path in sorted((ROOT / "examples").glob("*.py")))
    for block in readme.split("```python\n")[1:]:
        line = block.split("```")[0].strip().replace('"http://127.0.0.1:8080/v1"', 'f"{gateway}/v1"')
        assert line in examples
