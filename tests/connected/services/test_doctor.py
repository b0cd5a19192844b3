"""`ratchet doctor` on a real ClickHouse: what is pending is named before it is applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from ratchet.infra.clickhouse import retention
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.settings import load
from ratchet.schemas.errors import RatchetError
from ratchet.services import wiring
from ratchet.services.doctor import _clickhouse


def test_retention_that_is_not_applied_yet_is_named(clickhouse: str, tmp_path: Path) -> None:
    """With the table and the new rule; once applied the part is well."""
    path = tmp_path / "ratchet.toml"
    path.write_text(f'clickhouse_dsn = "{clickhouse}"\n[tasks.doctor-s.retention]\nshadows = "45d"\n')
    settings = load(path)
    with wiring.store(settings) as store:
        migrate(store)
        with pytest.raises(
            RatchetError, match=r"shadows_log: .*toIntervalDay\(45\) WHERE task = 'doctor-s'; run `ratchet"
        ):
            _clickhouse(settings)
        retention.apply(store, wiring.retention(settings))
        assert "retention is as set" in _clickhouse(settings)
        retention.apply(store, retention.clauses(settings.retention, {}))
