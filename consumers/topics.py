"""Topics of answers and prompts: clusters of offline embeddings over a bounded sample of both windows.

`wordllama` comes with the extra ``topics``; its weights are in its package and nothing is downloaded. The centroids
are a function of the baseline alone (its sample, a fixed seed), so they stay as long as it is pinned.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.consumers.rules.clusters import Vectors, assigned, centroids, labels
from ratchet.consumers.rules.measurement import Measurement, Side, Window
from ratchet.consumers.rules.measuring import MIN_SHARES, shares
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.rows import instant

TOPICS = 10
SLICES = 16
SAMPLE = 2_048
"""Texts of the baseline: half of them make the centroids, the other half is counted. Of the window half as many."""
_NEEDS = "topics need the package wordllama: pip install 'ratchet[topics]'"


def topics(store: Store, task: str, adapter: str, baseline: Window, window: Window) -> list[Measurement]:
    """Measure how the topics of answers and of prompts moved; abstains where the extra is not installed.

    Args:
        store: migrated.
        task: its name.
        adapter: whose; ``""`` is all.
        baseline: whose rows make the centroids.
        window: what is compared with it.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    kinds: tuple[tuple[str, Side], ...] = (("answer", "output"), ("prompt", "input"))
    if (model := _model()) is None:
        return [
            Measurement(f"{kind}_topics", side, "share of texts", 0, 0, test="chi2", effect_name="js", abstains=_NEEDS)
            for kind, side in kinds
        ]
    before, now = _sample(store, task, adapter, baseline, SAMPLE), _sample(store, task, adapter, window, SAMPLE // 2)
    return [
        _measure(
            model,
            f"{kind}_topics",
            side,
            [row[kind] for row in before if row[kind]],
            [row[kind] for row in now if row[kind]],
        )
        for kind, side in kinds
    ]


def _measure(model: Any, metric: str, side: Side, before: list[str], now: list[str]) -> Measurement:
    # the half that made the centroids lies nearer to them than texts they never saw
    fitted, counted = before[::2], before[1::2]
    if min(len(counted), len(now)) < MIN_SHARES:
        return shares(metric, side, [], [], [], len(counted), len(now))
    vectors = _embedded(model, fitted)
    centres = centroids(vectors, TOPICS, seed=0)
    names = labels(fitted, assigned(vectors, centres), len(centres))
    one, other = (
        np.bincount(assigned(_embedded(model, texts), centres), minlength=len(centres)).tolist()
        for texts in (counted, now)
    )
    return shares(metric, side, names, one, other, len(counted), len(now))


def _sample(store: Store, task: str, adapter: str, window: Window, most: int) -> list[dict[str, str]]:
    """Texts from the beginnings of equal slices of the window: the table's order makes each a short read."""
    step = (window.until - window.since) / SLICES
    found: list[dict[str, str]] = []
    for number in range(SLICES):
        since = window.since + number * step
        found += _texts(store, task, adapter, since, since + step, most // SLICES)
    return found


def _texts(store: Store, task: str, adapter: str, since: datetime, until: datetime, most: int) -> list[dict[str, str]]:
    # a slice whose first minutes are full needs no more of it
    for length in (timedelta(minutes=10), until - since):
        end = min(since + length, until)
        rows = store.query(
            "drift_texts", task=task, adapter=adapter, since=instant(since), until=instant(end), most=most
        )
        if len(rows) == most or end == until:
            break
    return rows


def _embedded(model: Any, texts: list[str]) -> Vectors:
    vectors: Vectors = np.asarray(model.embed(texts, norm=True), dtype=np.float32)
    return vectors


@cache
def _model() -> Any | None:
    """The embedding model that lies in the package, or None without it."""
    try:
        import wordllama
    except ModuleNotFoundError as error:
        if error.name != "wordllama":
            raise
        return None
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
