"""`ratchet adapters upgrade` on a real broker and ClickHouse's engine: who is retrained, on what, and who is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ratchet.infra.kafka.tail import read_all
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import SettingsError
from ratchet.schemas.events import Adapter, Training
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.cli.main import app

pytestmark = pytest.mark.connected


def live(traffic: Any, number: int, **more: Any) -> Adapter:
    """An adapter in the registry that its task serves."""
    adapter: Adapter = traffic.adapter(number).model_copy(update={"params": {"lora_r": 4, "seed": number}} | more)
    table = Rollout.model_validate(
        {
            "id": traffic.new_id(), "at": traffic.start, "task": adapter.task, "rollout_id": traffic.new_id(),
            "version": number, "status": "promoted", "stage": "100%", "stage_started_at": traffic.start,
            "stable": adapter.name, "action": "promote",
        }
    )  # fmt: skip
    traffic.write(adapter, table)
    return adapter


def test_live_adapters_are_retrained_on_the_new_base(
    traffic: Any, bootstrap: str, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipe and dataset stay, the base is the pool's; one that is on it already is none, and a wrong pool is named."""
    config = tmp_path / "ratchet.toml"
    pool = 'urls = ["http://127.0.0.1:9"]\nbase_model = "next"\n'
    config.write_text(f"[pools.next]\n{pool}[tasks.{traffic.task}]\n")
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    monkeypatch.setenv("RATCHET_KAFKA_BOOTSTRAP", bootstrap)
    monkeypatch.setenv("RATCHET_KAFKA_IDEMPOTENCE", "false")
    asked = ["adapters", "upgrade", "--task", traffic.task, "--base"]
    failed = CliRunner().invoke(app, [*asked, "next"]).exception
    assert isinstance(failed, SettingsError)
    assert f"{traffic.task}: no adapter is live on another base model than pool 'next'" in str(failed)
    adapter = live(traffic, 1)
    done = CliRunner().invoke(app, [*asked, "next", "--json"])
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.output)
    (request,) = [parse(Training, record.value or b"") for record in read_all(bootstrap, "ratchet.training")]
    assert (request.job_id, request.state, request.trigger) == (told["job_id"], "requested", "manual")
    assert request.params == {"lora_r": 4, "seed": 1, "pool": "next", "dataset": adapter.dataset}
    assert request.reason == f"upgrade of {adapter.name} from m to next"
    live(traffic, 2, base_model="next")
    assert isinstance(CliRunner().invoke(app, [*asked, "next"]).exception, SettingsError), "it is there already"
    wrong = CliRunner().invoke(app, [*asked, "nowhere"]).exception
    assert isinstance(wrong, SettingsError)
    assert "--base 'nowhere'; allowed: next" in str(wrong)
