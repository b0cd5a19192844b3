"""Topics as clusters of embeddings: centroids from a baseline, and which one each text is nearest to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
_ROUNDS = 25
_WORD = re.compile(r"[^\W\d_]{3,40}")


def centroids(vectors: Vectors, k: int, seed: int) -> Vectors:
    """Spherical k-means with k-means++ starts: unit vectors, at most ``k``; the same for the same input and seed.

    Args:
        vectors: one unit vector a row, at least one.
        k: clusters wanted; fewer come out where fewer rows differ.
        seed: of the starts.
    """
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(vectors)))]
    nearest = 1 - vectors @ vectors[chosen[0]]
    while len(chosen) < k:
        weights = np.clip(nearest, 0, None)
        weights[weights < 1e-6] = 0
        if weights.sum() == 0:
            break
        chosen.append(int(rng.choice(len(vectors), p=weights / weights.sum())))
        nearest = np.minimum(nearest, 1 - vectors @ vectors[chosen[-1]])
    found = vectors[chosen].astype(np.float32)
    for _ in range(_ROUNDS):
        of = assigned(vectors, found)
        moved = found.copy()
        for cluster in range(len(found)):
            if (members := vectors[of == cluster]).size and (length := float(np.linalg.norm(members.sum(axis=0)))):
                moved[cluster] = members.sum(axis=0) / length
        if np.allclose(moved, found, atol=1e-6):
            break
        found = moved
    return found


def assigned(vectors: Vectors, centres: Vectors) -> NDArray[np.int64]:
    """The number of the centroid that each unit vector is nearest to by cosine."""
    return np.asarray(np.argmax(vectors @ centres.T, axis=1), dtype=np.int64)


def labels(texts: Sequence[str], of: NDArray[np.int64], k: int) -> list[str]:
    """Three words for each cluster: those that stand in its texts more often than in all, or its number."""
    words = [set(_WORD.findall(text.lower())) for text in texts]
    everywhere = Counter(word for some in words for word in some)
    found = []
    for cluster in range(k):
        members = [some for some, number in zip(words, of, strict=True) if number == cluster]
        here = Counter(word for some in members for word in some)
        lift = {word: n / len(members) - everywhere[word] / len(words) for word, n in here.items()}
        best = sorted(lift, key=lambda word: (-lift[word], word))[:3]
        found.append(f"{cluster + 1}: {' '.join(best)}" if best else f"{cluster + 1}")
    return found
