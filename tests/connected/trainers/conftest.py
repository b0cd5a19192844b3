"""What training's tests stand on: ClickHouse's engine with its tables, and a model small enough to train in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_model import write_tiny_llama
from training_place import Place

from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate


@pytest.fixture(scope="session")
def store(clickhouse: str) -> Iterator[Store]:
    """ClickHouse's engine with every table; tests use tasks of their own."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers over bytes, with random weights: everything of the real model but its size."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture
def place(store: Store, tmp_path: Path, tiny_llama: Path) -> Place:
    """A fresh home and task."""
    return Place(store, tmp_path, tiny_llama)
