"""The real Alertmanager for tests: where it is found, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# what `make test` unpacks out of Debian's package
_UNPACKED = Path(os.environ.get("RATCHET_TEST_ALERTMANAGER", Path(sys.prefix) / "alertmanager"))
# Debian's build has the place of its templates built in: an unpacked one sees them there, and nobody else does.
_THERE = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount --bind "$0" /usr/share && exec "$@"']
CONFIG = """
route:
  receiver: people
  group_by: [alert_id]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
receivers:
  - name: people
    webhook_configs:
      - url: {url}
        send_resolved: true
"""


def alertmanager_argv(port: int, folder: Path, people: str) -> list[str]:
    """The command line of an Alertmanager that notifies the webhook ``people``; skips where there is none."""
    if installed := shutil.which("prometheus-alertmanager"):
        program = [installed]
    else:
        there = [*_THERE, str(_UNPACKED / "usr" / "share")]
        if not (_UNPACKED / "usr" / "bin" / "prometheus-alertmanager").is_file():
            pytest.skip(f"no prometheus-alertmanager on the path and none unpacked in {_UNPACKED} (make test does it)")
        if subprocess.run([*there, "true"], capture_output=True).returncode:
            pytest.skip("the unpacked Alertmanager needs a mount namespace, which this machine denies; install it")
        program = [*there, str(_UNPACKED / "usr" / "bin" / "prometheus-alertmanager")]
    config = folder / "alertmanager.yml"
    config.write_text(CONFIG.format(url=people))
    return [
        *program, f"--config.file={config}", f"--storage.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
    ]  # fmt: skip
