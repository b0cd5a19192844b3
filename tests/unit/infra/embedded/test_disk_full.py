"""A full disk under the embedded ClickHouse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ratchet.infra.embedded.clickhouse_body import Spool
from ratchet.infra.embedded.clickhouse_http import Ask, ClickHouseHttp

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_clickhouse_s_own_error() -> None:
    """The insert is refused with the code for no space, before the engine sees any of it."""
    body = Spool(FULL)  # never removed: the file is a device
    body.write(b"1,2\n")
    app = ClickHouseHttp(cast(Any, SimpleNamespace(insert_file=pytest.fail)))
    reply = app._answer(Ask("POST", {"query": "INSERT INTO t FORMAT CSV"}, {}), body, lambda _: True)
    app.close()
    assert reply is not None
    assert reply.status == 507
    assert (b"x-clickhouse-exception-code", b"243") in reply.headers
    assert b"No space left on device" in reply.body
