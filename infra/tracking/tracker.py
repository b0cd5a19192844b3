"""What an experiment tracker must do for us, whichever it is; everything may be asked twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from ratchet.infra.tracking.settings import OFFLINE, TrackingSettings

Status = Literal["finished", "failed", "killed"]


class Tracker(Protocol):
    """An experiment tracker. Each call may raise `TrackingError`, and is then made again later."""

    def run(self, job_id: str, name: str, at: datetime, tags: Mapping[str, str]) -> str:
        """The tracker's id of a job's run, which is made where there is none."""
        ...

    def log(self, run: str, metrics: Mapping[str, float], step: int, at: datetime) -> None:
        """Add figures of a step; the same again changes nothing."""
        ...

    def end(self, run: str, status: Status, at: datetime, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Say how a run ended, what it was made with and what came of it."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def open_tracker(settings: TrackingSettings, folder: Path) -> Tracker:
    """Make a client of a tracker; nothing is asked of it yet.

    Args:
        settings: which one.
        folder: where W&B's library keeps its files.

    Raises:
        TrackingError: its library is not installed.
    """
    from ratchet.infra.tracking.mlflow import Mlflow
    from ratchet.infra.tracking.wandb import Wandb

    token = settings.token.get_secret_value() if settings.token else None
    if settings.kind == "mlflow":
        assert settings.url is not None, "the settings refuse none"
        return Mlflow(settings.url, settings.experiment, token)
    offline = settings.url == OFFLINE
    return Wandb(None if offline else settings.url, settings.experiment, folder, token, offline=offline)
