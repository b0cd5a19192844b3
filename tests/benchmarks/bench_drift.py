"""`make bench-drift`: the drift and quality report over 10 million inferences, and Evidently on the same data.

The inferences (with scores and feedback) are made in SQL inside the embedded ClickHouse and rolled up; then the server
is started anew, so that its peak memory is the report's. A round is the whole report of every metric: with the exact
distances of both lengths (`ratchet drift report --exact`, ``seconds_ratchet``), from the rollups alone, and of
Evidently's figures alone, with which ``speedup`` compares. Evidently, in an environment of its own, computes the four
metrics that both have (KS, PSI, Jensen–Shannon, Wasserstein) of the same two columns, already in its memory. Processor
seconds say what the clock does not where other work shares the cores. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ratchet.consumers.report import measure
from ratchet.consumers.rules.bins import Counts
from ratchet.consumers.rules.distances import ks_p
from ratchet.consumers.rules.measurement import Measurement, Window
from ratchet.consumers.rules.measuring import as_evidently
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clickhouse.rollup import roll
from ratchet.infra.embedded import clickhouse_server
from ratchet.infra.embedded.ports import free_port
from ratchet.schemas.rows import instant

T = TypeVar("T")
TASK, ADAPTER = "bench", "bench@v1-1a2b3c4d"
START = datetime(2026, 10, 1, tzinfo=UTC)
BASELINE = Window(START, START + timedelta(days=20))
WINDOW = Window(BASELINE.until, START + timedelta(days=30))
EVIDENTLY = ["evidently==0.7.23", "pandas>=2.2,<3"]  # it imports a name that pandas 3 no longer has
SAME = {"ks": "ks_p", "psi": "psi_equal_width", "jensenshannon": "js_equal_width", "wasserstein": "wasserstein_sd"}
_UNIFORM = "((cityHash64(number, {salt}) + 0.5) / 18446744073709551616)"
_BATCH = 500_000
# Lengths are lognormal; the window's answers are 3% longer, its prompts as long as ever. Texts are parts of a corpus.
_INFERENCES = f"""
INSERT INTO ratchet.inferences_log
    (id, at, task, adapter, stage, status, request, content, latency_ms, prompt_tokens, completion_tokens, cost_usd)
WITH
    sqrt(-2 * log({_UNIFORM.format(salt=1)})) * cos(2 * pi() * {_UNIFORM.format(salt=2)}) AS z,
    sqrt(-2 * log({_UNIFORM.format(salt=1)})) * sin(2 * pi() * {_UNIFORM.format(salt=2)}) AS other,
    number * {{step_us:UInt64}} AS after_us,
    after_us >= 20 * 86400000000 AS later,
    toUInt32(least(4000, exp(4.8 + 0.6 * z + 0.03 * later))) AS answer,
    toUInt32(least(4000, exp(4.2 + 0.7 * other))) AS asked
SELECT
    toUUID(concat('018f0000-0000-7000-8000-', lower(leftPad(hex(number), 12, '0')))),
    fromUnixTimestamp64Micro(toInt64({{start_us:UInt64}} + after_us), 'UTC'),
    '{TASK}',
    '{ADAPTER}',
    'stable',
    if(number % 200 = 0, 'error', 'ok'),
    concat(
        '{{"messages":[{{"role":"user","content":"',
        substring({{corpus:String}}, 1 + cityHash64(number, 3) % 8000, asked),
        '"}}]}}'
    ),
    if(
        number % 200 = 0, '',
        concat(
            if(cityHash64(number, 5) % 100 = 0, 'I cannot help with that. ', ''),
            substring({{corpus:String}}, 1 + cityHash64(number, 4) % 8000, answer)
        )
    ),
    exp(6 + 0.5 * z + 0.02 * later),
    intDiv(asked, 4),
    intDiv(answer, 4),
    answer * 1e-6
FROM numbers({{first:UInt64}}, {{n:UInt64}})
"""
_SCORES = f"""
INSERT INTO ratchet.scores_log
    (id, at, task, adapter, target_id, target, kind, judge, rubric, rubric_hash, score, inclusion_probability)
SELECT generateUUIDv4(), at, task, adapter, id, 'inference', 'pointwise', 'judge', 'helpful.v1', 'aaaabbbbcccc',
    0.6 + 0.4 * (cityHash64(id) % 1000) / 1000, 0.1
FROM ratchet.inferences_log WHERE task = '{TASK}' AND cityHash64(id, 1) % 10 = 0
"""
_FEEDBACK = f"""
INSERT INTO ratchet.feedback_log (id, at, task, inference_id, kind, number)
SELECT generateUUIDv4(), at, task, id, if(cityHash64(id, 3) % 2 = 0, 'thumb', 'outcome'), cityHash64(id, 4) % 10 < 8
FROM ratchet.inferences_log WHERE task = '{TASK}' AND cityHash64(id, 2) % 50 = 0
"""


@contextmanager
def server(data: Path) -> Iterator[tuple[Store, int]]:
    """The embedded ClickHouse over a folder, and its process id."""
    port = free_port()
    process = subprocess.Popen(clickhouse_server.command(port, data), stderr=subprocess.DEVNULL)
    try:
        while not clickhouse_server.answers_ping(port):
            if process.poll() is not None:
                raise SystemExit(f"ClickHouse ended with {process.returncode}")
            time.sleep(0.1)
        with connect(f"http://127.0.0.1:{port}/ratchet", timeout_s=1800) as store:
            yield store, process.pid
    finally:
        process.terminate()
        process.wait()


def fill(store: Store, rows: int) -> None:
    """Make the traffic and roll it up."""
    rng = random.Random(1)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(600)]
    corpus = " ".join(rng.choices(words, weights=[1 / (rank + 1) for rank in range(600)], k=3000)).ljust(12_100, "x")
    step_us = int((WINDOW.until - START).total_seconds() * 1e6) // rows
    begun = time.perf_counter()
    for first in range(0, rows, _BATCH):
        params = {"first": first, "n": min(_BATCH, rows - first), "step_us": step_us, "corpus": corpus[:12_100]}
        store._client.command(_INFERENCES, parameters=params | {"start_us": int(START.timestamp() * 1e6)})
    store.command(_SCORES)
    store.command(_FEEDBACK)
    print(f"{rows:,} inferences with scores and feedback made in {time.perf_counter() - begun:.0f} s", flush=True)
    begun = time.perf_counter()
    rolled = roll(store, 0, 0)
    print(f"{rolled} hours (of three sources) rolled up in {time.perf_counter() - begun:.0f} s", flush=True)


def columns(store: Store, folder: Path) -> None:
    """Write what Evidently gets: the length of every answer and of every prompt, by window."""
    for name, window in (("before", BASELINE), ("now", WINDOW)):
        for side, column, which in (("output", "characters", "status = 'ok'"), ("input", "prompt_characters", "1")):
            found = store._client.query_df(
                f"SELECT {column} FROM ratchet.inferences_log FINAL WHERE task = {{task:String}} AND {which}"
                " AND at >= {since:DateTime64(6, 'UTC')} AND at < {until:DateTime64(6, 'UTC')}",
                parameters={"task": TASK, "since": instant(window.since), "until": instant(window.until)},
            )
            np.save(folder / f"{side}_{name}.npy", found[column].to_numpy(dtype=np.int64))


def evidently(environment: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Evidently's rounds, in its own environment, made where it is missing."""
    python = environment / "bin" / "python"
    if not python.is_file():
        print(f"installing {' '.join(EVIDENTLY)} into {environment} (a few minutes the first time)", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "-q", *EVIDENTLY], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(environment, ignore_errors=True)
            raise
    script = Path(__file__).with_name("drift_evidently.py")
    done = subprocess.run([str(python), str(script), str(folder), str(rounds)], stdout=subprocess.PIPE, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mb(pid: int) -> float:
    """The most memory that a process had resident."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def processor_s(pid: int) -> float:
    """The processor time of a process so far and of this one: what other work on the machine does not stretch much."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + time.process_time()


def report_of(store: Store, exact: bool) -> list[Measurement]:
    """The whole report."""
    return measure(store, TASK, ADAPTER, BASELINE, WINDOW, exact=exact)


def same(store: Store) -> None:
    """What Evidently computes, and no more: its four figures of both columns, from the rows."""
    windows = {"base_since": BASELINE.since, "base_until": BASELINE.until, "since": WINDOW.since, "until": WINDOW.until}
    asked = {name: instant(at) for name, at in windows.items()}
    ks_p.cache_clear()
    for side in ("output", "input"):
        rows = store.query("drift_values", task=TASK, adapter=ADAPTER, side=side, **asked)
        as_evidently(Counts.of_values(*([row[name] for row in rows] for name in ("value", "before", "now_with"))))


def timed(pid: int, rounds: int, do: Callable[[], T]) -> tuple[list[float], list[float], T]:
    """The seconds of each round, their processor seconds, and the last result; a first round is not counted."""
    seconds, processor = [], []
    for _ in range(rounds + 1):
        ks_p.cache_clear()
        begun, used = time.perf_counter(), processor_s(pid)
        found = do()
        seconds.append(time.perf_counter() - begun)
        processor.append(processor_s(pid) - used)
    return seconds[1:], processor[1:], found


def main() -> None:
    """Make the data, run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--evidently", type=Path, default=Path(".venv-evidently"), help="its environment")
    parser.add_argument("--evidently-rounds", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="a folder whose data is made once and used again")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="bench-drift-"))
    folder.mkdir(exist_ok=True)
    if not (folder / "input_now.npy").exists():
        with server(folder / "data") as (store, _):
            migrate(store)
            fill(store, given.rows)
            columns(store, folder)
    with server(folder / "data") as (store, pid):
        from_rollups, used_rollups, _ = timed(pid, given.rounds, lambda: report_of(store, False))
        seconds, used, report = timed(pid, given.rounds, lambda: report_of(store, True))
        seconds_same, used_same, _ = timed(pid, given.rounds, lambda: same(store))
        peak = peak_mb(pid)
    for one in report:
        print(
            f"{one.metric}: {one.baseline} -> {one.value}, {one.effect_name} {one.effect}, p {one.p_value}",
            one.abstains or "",
        )
    print("rounds from rollups alone:", " ".join(f"{one:.2f}" for one in from_rollups), "s")
    print("rounds of Evidently's figures alone:", " ".join(f"{one:.2f}" for one in seconds_same), "s")
    print("rounds with exact distances:", " ".join(f"{one:.2f}" for one in seconds), "s", flush=True)
    other = evidently(given.evidently, folder, given.evidently_rounds)
    differences = []
    for one in report:
        if one.metric in ("answer_length", "prompt_length"):
            for method, name in SAME.items():
                their, ours = other["figures"][one.side][method], one.distances[name]
                print(f"{one.metric} {method}: Evidently {their:.9g}, Ratchet {ours:.9g}")
                differences.append(abs(their - ours))
    if not given.keep:
        shutil.rmtree(folder)
    theirs, theirs_used = (statistics.median(other[name]) for name in ("seconds", "processor_s"))
    print(
        json.dumps(
            {
                "rows": given.rows,
                "seconds_ratchet": round(statistics.median(seconds), 3),
                "seconds_ratchet_rollups": round(statistics.median(from_rollups), 3),
                "seconds_ratchet_same": round(statistics.median(seconds_same), 3),
                "seconds_evidently": round(theirs, 3),
                "speedup": round(theirs / statistics.median(seconds_same), 1),
                "processor_s_ratchet": round(statistics.median(used), 3),
                "processor_s_ratchet_rollups": round(statistics.median(used_rollups), 3),
                "processor_s_ratchet_same": round(statistics.median(used_same), 3),
                "processor_s_evidently": round(theirs_used, 3),
                "max_abs_difference": max(differences),
                "peak_mb": round(peak),
                "peak_mb_evidently": round(other["peak_mb"]),
            }
        )
    )


if __name__ == "__main__":
    main()
