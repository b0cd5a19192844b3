"""`make bench-observe`: what one look of the rollout controller costs with a million inferences in its window.

They are made in SQL inside the embedded ClickHouse: three stages with users (5%, 20%, 50%), a few users with most of
the requests, two checks on every answer, a judge's score and feedback on every tenth. A look asks a question a metric
for both arms and all stages; milliseconds and processor seconds are the least of the rounds. The last line of output
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench_drift import processor_s, server

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.controller.observe import observe

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID = "018f0000-0000-7000-8000-000000000000"
STAGES = {"5%": 500, "20%": 2_000, "50%": 5_000}
ENDS = (0.2, 0.5, 1.0)
DEFAULT = ["completion", "latency_p95", "error_rate", "satisfaction"]
EVERY = [*DEFAULT, "judge_score", "cost", "length", "refusal_rate"]
_BATCH = 20_000
_UNIFORM = "((cityHash64(number, {salt}) + 0.5) / 18446744073709551616)"
_INFERENCES = f"""
INSERT INTO ratchet.inferences_log
    (id, at, task, adapter, stage, rollout_id, user, conversation_id, status, request, content, latency_ms, cost_usd)
WITH
    toUInt32(50000 * pow({_UNIFORM.format(salt=1)}, 3)) AS person,
    cityHash64(number, 2) % 100 AS kind,
    if(kind < 85, lower(hex(MD5(toString(person)))), '') AS of_user,
    if(kind < 95, concat('c', toString(person), '-', toString(cityHash64(number, 3) % 5)), '') AS talk,
    toInt64({{start_us:UInt64}} + number * 100000) AS us,
    number / {{rows:UInt64}} AS share,
    multiIf(share < {ENDS[0]}, 500, share < {ENDS[1]}, 2000, 5000) AS weight,
    cityHash64(multiIf(of_user != '', of_user, talk != '', talk, toString(number)), 4) % 10000 < weight AS canary,
    sqrt(-2 * log({_UNIFORM.format(salt=5)})) * cos(2 * pi() * {_UNIFORM.format(salt=6)}) AS z
SELECT
    toUUID(concat('018f0000-0000-7000-8000-', lower(leftPad(hex(number), 12, '0')))),
    fromUnixTimestamp64Micro(us, 'UTC'), 'bench', if(canary, 'bench@v2-1a2b3c4d', 'base'),
    if(canary, 'canary', 'stable'), toUUID('{ID}'), of_user, talk,
    multiIf(number % 200 = 0, 'error', number % 333 = 0, 'cancelled', 'ok'),
    concat('{{"messages":[{{"role":"user","content":"', repeat(hex(MD5(toString(number))), 8), '"}}]}}'),
    if(number % 200 = 0, '', repeat(hex(SHA256(toString(number))), 1 + number % 9)),
    exp(6 + 0.5 * z), number % 7 * 1e-6
FROM numbers({{first:UInt64}}, {{n:UInt64}})
"""
_SCORES = """
INSERT INTO ratchet.scores_log
    (id, at, task, adapter, rollout_id, target_id, target, kind, judge, rubric, rubric_hash, score, verdict,
     inclusion_probability)
SELECT
    generateUUIDv7(), at, task, adapter, rollout_id, id, 'inference', '{kind}', 'j', '{rubric}', '0000000000000000',
    cityHash64(id, 9) % 100 < 90, if(cityHash64(id, 9) % 100 < 90, 'pass', 'fail'), 1. / {every}
FROM ratchet.inferences_log WHERE task = 'bench' AND status = 'ok' AND cityHash64(id, 11) % {every} = 0
"""
_FEEDBACK = """
INSERT INTO ratchet.feedback_log (id, at, task, inference_id, kind, number)
SELECT generateUUIDv7(), at + toIntervalSecond(cityHash64(id, 8) % 7200), task, id,
    if(cityHash64(id, 3) % 2 = 0, 'thumb', 'outcome'), cityHash64(id, 4) % 10 < 8
FROM ratchet.inferences_log WHERE task = 'bench' AND cityHash64(id, 2) % 10 = 0 ORDER BY 2
"""


class Timed:
    """The store, with the least time that each question took."""

    def __init__(self, store: Store) -> None:
        self.store, self.ms = store, defaultdict[str, float](lambda: float("inf"))

    def query(self, name: str, /, **params: Any) -> list[dict[str, Any]]:
        """Ask it."""
        begun = time.perf_counter()
        found = self.store.query(name, **params)
        about = str(params.get("metric") or params.get("rubric") or params.get("kind") or "")
        self.ms[f"{name} {about}".strip()] = min(
            self.ms[f"{name} {about}".strip()], (time.perf_counter() - begun) * 1e3
        )
        return found


def fill(store: Store, rows: int) -> None:
    """Make the rollout's traffic, in batches as ingest writes them."""
    begun = time.perf_counter()
    for first in range(0, rows, _BATCH):
        params = {"first": first, "n": min(_BATCH, rows - first), "rows": rows}
        store._client.command(_INFERENCES, parameters=params | {"start_us": int(START.timestamp() * 1e6)})
    for kind, rubric, every in (("check", "ticket", 1), ("check", "refuses", 1), ("pointwise", "helpful.v1", 10)):
        store.command(_SCORES.format(kind=kind, rubric=rubric, every=every))
    store.command(_FEEDBACK)
    print(f"{rows:,} inferences with scores and feedback made in {time.perf_counter() - begun:.0f} s", flush=True)


def rollout(rows: int, metrics: list[str]) -> tuple[Rollout, TaskPolicy, datetime]:
    """The rollout in its third stage, its task with these gates, and the present instant."""
    ends = [START + timedelta(seconds=0.1 * rows * end) for end in ENDS]
    begun = dict(zip(STAGES, [START, *ends], strict=False))
    carried = [
        {"stage": stage, "weight_bp": STAGES[stage], "since": begun[stage], "until": end}
        for stage, end in zip(list(STAGES)[:2], ends, strict=False)
    ]
    body = {
        "id": ID, "at": START, "task": "bench", "rollout_id": ID, "version": 3, "status": "running", "stage": "50%",
        "stage_started_at": begun["50%"], "stable": "base", "candidate": "bench@v2-1a2b3c4d", "weight_bp": 5_000,
        "action": "advance", "carried": carried,
    }  # fmt: skip
    stages = [{"name": name, "weight_bp": weight} for name, weight in STAGES.items()]
    gates = [{"metric": metric, "margin": 0.1, "margin_kind": "rel"} for metric in metrics]
    checks = [{"name": "ticket", "kind": "length"}, {"name": "refuses", "kind": "refusal"}]
    policy = {"stages": [*stages, {"name": "100%", "weight_bp": 10_000}], "gates": gates}
    task = {"completion": "ticket", "checks": checks, "rollout": policy}
    return Rollout.model_validate(body), TaskPolicy.model_validate(task), ends[-1]


def main() -> None:
    """Fill, look, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    result: dict[str, Any] = {"rows": given.rows}
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (store, pid):
        migrate(store)
        fill(store, given.rows)
        timed = Timed(store)
        for name, metrics in (("default", DEFAULT), ("every", EVERY)):
            state, policy, now = rollout(given.rows, metrics)
            spent = []
            for _ in range(given.rounds):
                begun, processor = time.perf_counter(), processor_s(pid)
                observe(timed, state, policy, now)
                spent.append(((time.perf_counter() - begun) * 1e3, processor_s(pid) - processor))
            result[f"look_ms_{name}"] = round(min(ms for ms, _ in spent))
            result[f"look_processor_s_{name}"] = round(min(seconds for _, seconds in spent), 2)
        for question, ms in sorted(timed.ms.items(), key=lambda item: -item[1]):
            print(f"  {ms:6.0f} ms  {question}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
