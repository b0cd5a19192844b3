"""`make bench-edge`: how long a real nginx under load goes on asking a candidate that was aborted.

Broker, exporter, nginx as `infra/deploy/nginx` ships it, two model servers that answer at once, eight clients that ask
all the time. Each flip goes from half of the users to none: ``last`` is from the decision's instant to the last request
that reached the candidate, ``said`` to the acknowledgement. ``--keep-alive`` keeps clients' connections, as nginx
does by default, to count what a reload then fails. The last line of output is one JSON object, in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from edge_place import EdgePlace, edge_place

from ratchet.infra.embedded.broker import BrokerProbe, broker_command
from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor
from ratchet.infra.kafka.admin import ensure_topics


@dataclass(frozen=True)
class Flip:
    """Seconds from one decision."""

    last: float
    said: float


async def flips(place: EdgePlace, n: int) -> tuple[list[Flip], int, int]:
    """Flip ``n`` times under load; what was measured, how many requests were answered, and how many badly."""
    found: list[Flip] = []
    async with place.load([f"user-{number}" for number in range(500)]) as answers:
        for _ in range(n):
            place.publish(weight_bp=5_000)
            await asyncio.to_thread(place.acknowledged)
            await asyncio.sleep(0.5)
            decided = time.time()
            place.publish(weight_bp=0, status="aborted", action="abort")
            await asyncio.to_thread(place.acknowledged)
            said = time.time()
            await asyncio.sleep(0.5)
            found.append(Flip(max(0.0, place.candidate.asked[-1][0] - decided), said - decided))
    return found, len(answers), sum(answer.status_code != 200 for answer in answers)


def figures(name: str, values: list[float]) -> dict[str, float]:
    """Median and the worst, rounded to a millisecond."""
    return {f"{name}_s_p50": round(statistics.median(values), 3), f"{name}_s_max": round(max(values), 3)}


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flips", type=int, default=25)
    parser.add_argument("--keep-alive", action="store_true")
    options = parser.parse_args()
    kept = (lambda conf: conf.replace("keepalive_timeout 0;", "")) if options.keep_alive else str
    with tempfile.TemporaryDirectory() as scratch, Supervisor(grace_s=0.2) as supervisor:
        port = free_port()
        broker = f"127.0.0.1:{port}"
        supervisor.start(Child("broker", broker_command(port), Path(scratch) / "broker.log", BrokerProbe(broker)))
        ensure_topics(broker)
        with edge_place(Path(scratch) / "edge", broker, kept) as place:
            found, answered, bad = asyncio.run(flips(place, options.flips))
            report: dict[str, Any] = {"flips": len(found), "answered": answered, "failed_requests": place.failed + bad}
    report |= figures("last", [flip.last for flip in found]) | figures("said", [flip.said for flip in found])
    print(json.dumps(report))


if __name__ == "__main__":
    main()
