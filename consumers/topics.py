"""Topics of answers and prompts: clusters of offline embeddings over a bounded sample of both windows.

`wordllama` comes with the extra ``topics``; its weights are in its package and nothing is downloaded. The centroids are
a function of the baseline alone (its sample, a fixed seed). Those of a pinned baseline are kept in ClickHouse, with
what the baseline counted: its rows expire, and the topics must not (docs/decisions/031).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ratchet.consumers.rules.clusters import Vectors, assigned, centroids, labels
from ratchet.consumers.rules.measurement import Measurement, Side, Window
from ratchet.consumers.rules.measuring import MIN_SHARES, shares
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.rows import instant

TOPICS = 10
SEED = 0
SLICES = 16
_SPARE = 4
"""Times as much of a slice is read as it would need if traffic were even: nights have less."""
SAMPLE = 960
"""Texts of the baseline: a third makes the centroids, the others are counted. Of the window as many as those."""
NEEDS = "topics need the package wordllama: pip install 'ratchet[topics]'"
_KINDS: tuple[tuple[str, Side], ...] = (("answer", "output"), ("prompt", "input"))


@dataclass(frozen=True, slots=True)
class TopicModel:
    """A baseline's topics: ``centres`` one unit vector each, ``names``, and ``counts`` of the baseline's own texts."""

    centres: Vectors
    names: tuple[str, ...]
    counts: tuple[int, ...]

    @property
    def version(self) -> str:
        """The hash of the whole content, 16 hex digits."""
        content = hashlib.sha256(np.asarray(self.centres, dtype="<f4").tobytes())
        content.update(repr((self.names, self.counts)).encode())
        return content.hexdigest()[:16]


def topics(
    store: Store,
    task: str,
    adapter: str,
    baseline: Window,
    window: Window,
    n_baseline: int,
    n: int,
    *,
    keep: bool = False,
) -> list[Measurement]:
    """Measure how the topics of answers and of prompts moved; abstains where the extra is not installed.

    Args:
        store: migrated.
        task: its name.
        adapter: whose; ``""`` is all.
        baseline: whose rows make the centroids, unless those of this very baseline were kept.
        window: what is compared with it.
        n_baseline: how many inferences the baseline has.
        n: how many the window has.
        keep: the baseline is pinned and over: what is made of it now stays.

    Raises:
        StoreError: ClickHouse refused or is away.
    """
    if (model := embedding_model()) is None:
        return [
            Measurement(f"{kind}_topics", side, "share of texts", 0, 0, test="chi2", effect_name="js", abstains=NEEDS)
            for kind, side in _KINDS
        ]
    kept = _kept(store, task, adapter, baseline)
    made: dict[str, TopicModel] = {}
    if len(kept) < len(_KINDS):
        before = _sample(store, task, adapter, baseline, n_baseline, SAMPLE)
        for kind, _ in _KINDS:
            texts = [row[kind] for row in before if row[kind]]
            if f"{kind}_topics" not in kept and (fitted := _fitted(model, texts)) is not None:
                made[f"{kind}_topics"] = fitted
    if keep and made:
        store.insert_rows("topics_log", [_row(task, adapter, baseline, metric, one) for metric, one in made.items()])
    now = _sample(store, task, adapter, window, n, SAMPLE * 2 // 3)
    return [
        _measure(
            model, f"{kind}_topics", side, (kept | made).get(f"{kind}_topics"), [row[kind] for row in now if row[kind]]
        )
        for kind, side in _KINDS
    ]


def _fitted(model: Any, texts: list[str]) -> TopicModel | None:
    """The topics of a baseline's texts; None where too few are left to be counted."""
    # texts that made the centroids lie nearer to them than texts they never saw
    fitted, counted = texts[::3], [text for at, text in enumerate(texts) if at % 3]
    if len(counted) < MIN_SHARES:
        return None
    vectors = embedded(model, fitted)
    centres = centroids(vectors, TOPICS, seed=SEED)
    names = labels(fitted, assigned(vectors, centres), len(centres))
    return TopicModel(centres, tuple(names), _counted(model, centres, counted))


def _counted(model: Any, centres: Vectors, texts: list[str]) -> tuple[int, ...]:
    return tuple(np.bincount(assigned(embedded(model, texts), centres), minlength=len(centres)).tolist())


def _measure(model: Any, metric: str, side: Side, known: TopicModel | None, now: list[str]) -> Measurement:
    if known is None or len(now) < MIN_SHARES:
        return shares(metric, side, [], [], [], sum(known.counts) if known else 0, len(now))
    counts = _counted(model, known.centres, now)
    return shares(metric, side, known.names, known.counts, counts, sum(known.counts), len(now))


def _kept(store: Store, task: str, adapter: str, baseline: Window) -> dict[str, TopicModel]:
    """The topics that were kept of this baseline by the embedding model that is installed, by metric."""
    rows = store.query(
        "drift_topics", task=task, adapter=adapter, since=instant(baseline.since), until=instant(baseline.until)
    )
    return {
        row["metric"]: TopicModel(
            np.asarray(row["centroids"], dtype=np.float32), tuple(row["labels"]), tuple(map(int, row["counts"]))
        )
        for row in rows
        if row["model"] == _model_name()
    }


def _row(task: str, adapter: str, baseline: Window, metric: str, made: TopicModel) -> dict[str, Any]:
    return {
        "task": task,
        "adapter": adapter,
        "metric": metric,
        "baseline_since": instant(baseline.since),
        "baseline_until": instant(baseline.until),
        "model": _model_name(),
        "version": made.version,
        "centroids": made.centres.tolist(),
        "labels": list(made.names),
        "counts": list(made.counts),
    }


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
    """Unit vectors of texts, one a row."""
    vectors: Vectors = np.asarray(model.embed(texts, norm=True), dtype=np.float32)
    return vectors


@cache
def _model_name() -> str:
    """What the embeddings are from: another version's vectors lie elsewhere."""
    return f"wordllama {version('wordllama')}"


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
