"""`ratchet adapters push` and `pull` over S3's protocol: published late, lost, fetched, exchanged by somebody."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, s3_server
from typer.testing import CliRunner

from ratchet.infra.artifacts import ArtifactStore
from ratchet.schemas.errors import ArtifactError, RolloutError
from ratchet.services.cli.main import app
from ratchet.trainers.registry import CONFIG, MANIFEST, WEIGHTS


def test_pushed_lost_and_pulled(traffic: Any, clickhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte comes back under the name; twice is once; what was exchanged in the bucket is refused."""
    config = tmp_path / "ratchet.toml"
    config.write_text(f'home = "home"\nartifacts = "s3://{BUCKET}/here"\n[tasks.{traffic.task}]\n')
    monkeypatch.setenv("RATCHET_CONFIG", str(config))
    monkeypatch.setenv("RATCHET_CLICKHOUSE_DSN", clickhouse)
    adapter = traffic.adapter(1)
    traffic.write(adapter)
    folder = Path(adapter.path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["adapters", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0
        return json.loads(done.stdout)

    with s3_server(tmp_path):
        assert run("push", adapter.name) == [{"name": adapter.name, "published": True}]
        assert run("push", adapter.name) == [{"name": adapter.name, "published": False}]
        shutil.rmtree(folder)
        (pulled,) = run("pull", adapter.name)
        there = Path(pulled["path"])
        assert there == (tmp_path / "home" / "adapters" / adapter.name).resolve()
        assert {path.name: path.read_bytes() for path in there.iterdir() if path.name != MANIFEST} == before
        assert run("pull", adapter.name) == [pulled]
        shutil.rmtree(there)
        at, root = ArtifactStore(f"s3://{BUCKET}/here")._at
        at.pipe_file(f"{root}/{adapter.name}/{CONFIG}", b"[]")
        with pytest.raises(ArtifactError, match=rf"{CONFIG}: expected sha256 {adapter.files[CONFIG]}, found "):
            run("pull", adapter.name)
        assert not there.exists()
        assert adapter.files.keys() == {WEIGHTS, CONFIG}
        with pytest.raises(RolloutError, match="is not in the registry"):
            run("pull", f"{traffic.task}@v9-00000000")
        assert CliRunner().invoke(app, ["adapters", "pull"]).exit_code == 2
