"""Topics of answers and prompts: clusters of offline embeddings over a bounded sample of both windows.

`wordllama` comes with the extra ``topics``; its weights are in its package and nothing is downloaded. The centroids
are a function of the baseline alone (its sample, a fixed seed), so they stay as long as it is pinned.
"""

from __future__ import annotations

from datetime import timedelta
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
_SPARE = 4
"""Times as much of a slice is read as it would need if traffic were even: nights have less."""
SAMPLE = 960
"""Texts of the baseline: a third makes the centroids, the others are counted. Of the window as many as those."""
NEEDS = "topics need the package wordllama: pip install 'ratchet[topics]'"


def topics(
    store: Store, task: str, adapter: str, baseline: Window, window: Window, n_baseline: int, n: int
) -> list[Measurement]:
    """Measure how the topics of answers and of prompts moved; abstains where the extra is not installed.

    Args:
        store: migrated.
        task: its name.
        adapter: whose; ``""`` is all.
        baseline: whose rows make the centroids.
        window: what is compared with it.
        n_baseline: how many inferences the baseline has.
        n: how many the window has.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    kinds: tuple[tuple[str, Side], ...] = (("answer", "output"), ("prompt", "input"))
    if (model := embedding_model()) is None:
        return [
            Measurement(f"{kind}_topics", side, "share of texts", 0, 0, test="chi2", effect_name="js", abstains=NEEDS)
            for kind, side in kinds
        ]
    before = _sample(store, task, adapter, baseline, n_baseline, SAMPLE)
    now = _sample(store, task, adapter, window, n, SAMPLE * 2 // 3)
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
    # texts that made the centroids lie nearer to them than texts they never saw
    fitted, counted = before[::3], [text for at, text in enumerate(before) if at % 3]
    if min(len(counted), len(now)) < MIN_SHARES:
        return shares(metric, side, [], [], [], len(counted), len(now))
    vectors = embedded(model, fitted)
    centres = centroids(vectors, TOPICS, seed=0)
    names = labels(fitted, assigned(vectors, centres), len(centres))
    one, other = (
        np.bincount(assigned(embedded(model, texts), centres), minlength=len(centres)).tolist()
        for texts in (counted, now)
    )
    return shares(metric, side, names, one, other, len(counted), len(now))


def _sample(store: Store, task: str, adapter: str, window: Window, n: int, most: int) -> list[dict[str, str]]:
    """Texts from the beginnings of equal slices of the window, of which it has ``n``."""
    slice_us = max(1, int((window.until - window.since) / SLICES / timedelta(microseconds=1)))
    asked = {
        "task": task,
        "adapter": adapter,
        "since": instant(window.since),
        "until": instant(window.until),
        "slice_us": slice_us,
    }
    read_us = max(1, int(slice_us * min(1.0, _SPARE * most / max(n, 1))))
    rows = store.query("drift_texts", **asked, read_us=read_us, most=most // SLICES)
    if len(rows) < min(n, most):  # traffic in bursts: all of a slice, and every so many of what there is
        rows = store.query("drift_texts", **asked, read_us=slice_us, most=most)
        rows = [rows[at * len(rows) // most] for at in range(most)] if len(rows) > most else rows
    return rows


def embedded(model: Any, texts: list[str]) -> Vectors:
    """One unit vector a text, by `embedding_model`."""
    vectors: Vectors = np.asarray(model.embed(texts, norm=True), dtype=np.float32)
    return vectors


@cache
def embedding_model() -> Any | None:
    """The embedding model that lies in the package, or None without it."""
    try:
        import wordllama
    except ModuleNotFoundError as error:
        if error.name != "wordllama":
            raise
        return None
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
