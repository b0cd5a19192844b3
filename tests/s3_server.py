"""An S3 server on loopback: moto's, in a process of its own. It keeps everything in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ratchet.infra.embedded.ports import free_port
from ratchet.infra.embedded.supervisor import Child, Supervisor

BUCKET = "bucket"


@contextmanager
def s3_server(folder: Path) -> Iterator[Supervisor]:
    """Start it with one bucket, and point this process's AWS configuration at it; gives what stops it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/moto-api/data.json", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    with pytest.MonkeyPatch.context() as patch, Supervisor(grace_s=0.2) as supervisor:
        for name, value in {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            patch.setenv(name, value)
        supervisor.start(Child("s3", argv, folder / "s3.log", ready))
        httpx.put(f"{url}/{BUCKET}").raise_for_status()
        yield supervisor
