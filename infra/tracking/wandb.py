"""Weights & Biases by its library; without its server (``offline``) the runs are files that ``wandb sync`` sends.

A job's id is its run's id, so a job that is told of again goes on in the same run, and the library passes over steps
that it has. It sends by itself, and keeps in its folder what it could not send.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ratchet.infra.tracking.tracker import Status
from ratchet.schemas.errors import TrackingError


class Wandb:
    """Runs of one W&B project.

    Args:
        url: of the server; None is W&B's own.
        project: whose runs these are.
        folder: where the library keeps its files.
        token: the API key.
        offline: nothing is sent.

    Raises:
        TrackingError: the library is not installed.
    """

    def __init__(
        self, url: str | None, project: str, folder: Path, token: str | None = None, *, offline: bool = False
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrackingError(f"tracking by wandb: {error}; it needs the extra 'tracking-wandb'") from None

        self._wandb, self._project, self._folder = wandb, project, folder
        self._offline = offline
        self._settings: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True, "save_code": False}
        self._settings |= {"api_key": token} if token else {}
        self._settings |= {"base_url": url} if url else {}
        self._runs: dict[str, Any] = {}

    def run(self, job_id: str, name: str, at: datetime, tags: Mapping[str, str]) -> str:
        """Go on with a job's run, or begin it."""
        if job_id not in self._runs:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                self._runs[job_id] = self._wandb.init(
                    project=self._project,
                    id=job_id,
                    name=name,
                    config=dict(tags),
                    dir=str(self._folder),
                    mode="offline" if self._offline else "online",
                    resume="allow",
                    reinit="create_new",  # tasks train side by side
                    settings=self._wandb.Settings(**self._settings),
                )
            except self._wandb.Error as error:
                raise TrackingError(f"W&B: {error}") from error
        return job_id

    def log(self, run: str, metrics: Mapping[str, float], step: int, at: datetime) -> None:
        """Add figures of a step."""
        self._runs[run].log(dict(metrics), step=step)

    def end(self, run: str, status: Status, at: datetime, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Say how a run ended."""
        ended = self._runs.pop(run)
        ended.config.update(dict(params), allow_val_change=True)
        ended.summary.update(dict(tags) | {"ratchet.status": status})
        ended.finish(exit_code=0 if status == "finished" else 1)

    def close(self) -> None:
        """End what is open, as interrupted; the next event of such a job goes on with it."""
        for run in self._runs.values():
            run.finish(exit_code=1)
        self._runs.clear()
