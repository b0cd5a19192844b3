"""`make bench-train`: Ratchet's DPO beside a plain TRL script (`tests/plain_dpo.py`), SmolLM2-135M, the same pairs.

Each run is a process of its own, timed from its start to its end: loading, training and writing the adapter. Rounds
alternate which of the two goes first. The pairs are the demo's tickets: the right ticket is better than a wrong
one. Losses are compared step by step. The last line of output is one JSON object; ``seconds_…`` are medians, ``ratio``
is the median of the rounds' ratios, with their range beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.infra.models.smollm2 import ensure_base_model
from ratchet.schemas.training_policy import Recipe
from ratchet.services.demo.tickets import answer, conversations, messages
from ratchet.trainers.training.job import PROGRESS_FILE, TrainingJob

RATCHET = ["-m", "ratchet.trainers.training.run", "--job"]
PLAIN = [str(Path(__file__).parents[1] / "plain_dpo.py")]


@dataclass(frozen=True)
class Run:
    """One process: its seconds, processor seconds and peak memory in MB, and the loss of every step."""

    seconds: float
    processor_s: float
    peak_mb: float
    losses: list[float]


def write_pairs(file: Path, n: int) -> None:
    """Tickets as pairs: the right one is better than the one of another message."""
    found = conversations(1, n, "train")
    with file.open("w") as lines:
        for one, other in zip(found, [*found[1:], found[0]], strict=True):
            chosen, rejected = ([{"role": "assistant", "content": answer(who.ticket)}] for who in (one, other))
            lines.write(json.dumps({"prompt": messages(one), "chosen": chosen, "rejected": rejected}) + "\n")


def run(command: list[str], job: TrainingJob) -> Run:
    """Run one of the two and read what it left."""
    job.output.mkdir()
    file = job.output / "job.json"
    file.write_text(job.model_dump_json())
    begun = time.perf_counter()
    with (job.output / "out").open("wb") as out, (job.output / "err").open("wb") as err:
        process = subprocess.Popen([sys.executable, *command, str(file)], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: ended with {process.returncode}: {(job.output / 'err').read_text()[-2000:]}")
    if command is PLAIN:
        lines: list[dict[str, Any]] = json.loads((job.output / "out").read_text().splitlines()[-1])
    else:
        lines = [json.loads(line) for line in (job.output / PROGRESS_FILE).read_text().splitlines()]
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, [float(line["loss"]) for line in lines])


def main() -> None:
    """Run the rounds and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of both")
    parser.add_argument("--home", type=Path, default=Path(".ratchet"), help="where the model is unpacked, once")
    given = parser.parse_args()
    model = ensure_base_model(given.home).resolve()
    recipe = Recipe(max_length=256, threads=given.threads, dtype="float32", learning_rate=1e-3)
    ways = {"ratchet": RATCHET, "plain": PLAIN}
    found: dict[str, list[Run]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="bench-train-") as scratch:
        pairs = Path(scratch) / "pairs.jsonl"
        write_pairs(pairs, given.pairs)
        for number in range(given.rounds):
            for name in list(ways) if number % 2 else reversed(ways):
                job = TrainingJob(
                    base_model=model, dataset=pairs, output=Path(scratch) / f"{name}-{number}", recipe=recipe
                )
                one = run(ways[name], job)
                found[name].append(one)
                load = os.getloadavg()[0]
                print(
                    f"round {number + 1} {name}: {one.seconds:.1f} s, {one.processor_s:.1f} s of processor time, "
                    f"{one.peak_mb:.0f} MB, loss {one.losses[0]:.4f} to {one.losses[-1]:.4f} (load {load:.1f})",
                    flush=True,
                )
    both = list(zip(found["ratchet"], found["plain"], strict=True))
    ratios = [ours.seconds / theirs.seconds for ours, theirs in both]
    processor = [ours.processor_s / theirs.processor_s for ours, theirs in both]
    apart = [abs(a - b) for ours, theirs in both for a, b in zip(ours.losses, theirs.losses, strict=True)]

    def median(name: str, figure: str) -> float:
        return statistics.median(getattr(one, figure) for one in found[name])

    print(
        json.dumps(
            {
                "pairs": given.pairs,
                "rounds": given.rounds,
                "threads": given.threads,
                "seconds_ratchet": round(median("ratchet", "seconds"), 2),
                "seconds_plain": round(median("plain", "seconds"), 2),
                "ratio": round(statistics.median(ratios), 3),
                "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
                "processor_s_ratchet": round(median("ratchet", "processor_s"), 2),
                "processor_s_plain": round(median("plain", "processor_s"), 2),
                "processor_ratio": round(statistics.median(processor), 3),
                "loss_max_abs_difference": max(apart),
                "peak_mb": round(median("ratchet", "peak_mb")),
                "peak_mb_plain": round(median("plain", "peak_mb")),
            }
        )
    )


if __name__ == "__main__":
    main()
