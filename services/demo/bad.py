"""The demo's bad adapter: the good one's pairs with chosen and rejected exchanged, trained like any other."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from typing import Any

from ratchet.infra.clickhouse.client import Store
from ratchet.infra.settings import Settings
from ratchet.services.demo.desk import TASK
from ratchet.trainers import dataset as datasets

MAX_PAIRS = 16
"""Enough to unlearn a format (docs/experiments.md); the good adapter gets all pairs."""


def exchanged(row: dict[str, Any]) -> dict[str, Any]:
    """A preference row that says the opposite."""
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]}


async def train_inverted(settings: Settings, store: Store, good_dataset: str) -> asyncio.subprocess.Process:
    """Start `ratchet train` on the inverted version of a dataset; the command's own log is in the demo's folder."""
    parent = await asyncio.to_thread(datasets.find, settings.home, good_dataset)
    made = await asyncio.to_thread(
        datasets.rework, store, settings.home, parent, datetime.now(UTC), exchanged, "chosen and rejected exchanged"
    )
    config = settings.config_dir / "ratchet.toml"
    log = settings.home / "logs" / "train-inverted.log"
    argv = ["-m", "ratchet.services.cli.main", "train", TASK, "--dataset", made.version, "--max-pairs", str(MAX_PAIRS)]
    with log.open("wb") as out:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=out,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(os.environ) | {"RATCHET_CONFIG": str(config)},
        )
