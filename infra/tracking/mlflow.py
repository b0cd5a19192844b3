"""MLflow by its REST API, which needs no library: runs, figures, tags.

A run is found again by the tag ``ratchet.job_id``, and a figure is kept once by its name, step and instant, so the same
event told twice is told once. Reference: https://mlflow.org/docs/latest/rest-api.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import httpx

from ratchet.infra.tracking.tracker import Status
from ratchet.schemas.errors import TrackingError

JOB = "ratchet.job_id"
MOST_PARAMS = 100
"""In one request, as MLflow has it."""
MOST_TEXT = 5_000
"""Characters of a tag or parameter; MLflow refuses longer ones."""
PATIENCE_S = 30.0
STATUS: dict[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class Mlflow:
    """An MLflow tracking server.

    Args:
        url: its address.
        experiment: whose runs these are; made where there is none.
        token: sent as bearer; None where the server asks for none.
    """

    def __init__(self, url: str, experiment: str, token: str | None = None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=f"{url.rstrip('/')}/api/2.0/mlflow", headers=headers, timeout=PATIENCE_S)
        self._name, self._experiment = experiment, ""

    def run(self, job_id: str, name: str, at: datetime, tags: Mapping[str, str]) -> str:
        """Find the run of a job, or make it."""
        where = {"experiment_ids": [self._experiment_id()], "filter": f"tags.`{JOB}` = '{job_id}'", "max_results": 1}
        found = self._ask("runs/search", where).get("runs", [])
        if not found:
            told = [{"key": key, "value": value[:MOST_TEXT]} for key, value in {JOB: job_id, **tags}.items()]
            wanted = {"experiment_id": self._experiment_id(), "run_name": name, "start_time": _ms(at), "tags": told}
            found = [self._ask("runs/create", wanted)["run"]]
        return str(found[0]["info"]["run_id"])

    def log(self, run: str, metrics: Mapping[str, float], step: int, at: datetime) -> None:
        """Add figures of a step."""
        told = [{"key": key, "value": value, "timestamp": _ms(at), "step": step} for key, value in metrics.items()]
        self._ask("runs/log-batch", {"run_id": run, "metrics": told})

    def end(self, run: str, status: Status, at: datetime, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Say how a run ended."""
        for some in _parts(params, MOST_PARAMS):
            self._ask("runs/log-batch", {"run_id": run, "params": some})
        for some in _parts(tags, MOST_PARAMS):
            self._ask("runs/log-batch", {"run_id": run, "tags": some})
        self._ask("runs/update", {"run_id": run, "status": STATUS[status], "end_time": _ms(at)})

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _experiment_id(self) -> str:
        if not self._experiment:
            answer = self._send("GET", "experiments/get-by-name", params={"experiment_name": self._name})
            if answer.status_code == httpx.codes.NOT_FOUND:
                self._experiment = str(self._ask("experiments/create", {"name": self._name})["experiment_id"])
            else:
                self._experiment = str(_good(answer)["experiment"]["experiment_id"])
        return self._experiment

    def _ask(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask something.

        Raises:
            TrackingError: the server is away, or will not have it.
        """
        return _good(self._send("POST", what, json=body))

    def _send(self, method: str, what: str, **more: Any) -> httpx.Response:
        try:
            return self._client.request(method, f"/{what}", **more)
        except httpx.HTTPError as error:
            raise TrackingError(f"MLflow at {self._client.base_url.host} is away: {error!r}") from error


def _good(answer: httpx.Response) -> dict[str, Any]:
    what = f"MLflow's {answer.request.url.path.rsplit('/mlflow/', 1)[-1]}"
    if answer.status_code != httpx.codes.OK:
        raise TrackingError(f"{what} answered {answer.status_code}: {answer.text[:500]}")
    try:
        value = answer.json()
    except ValueError as error:
        raise TrackingError(f"{what} answered no JSON: is it MLflow that tracking_uri names?") from error
    if not isinstance(value, dict):
        raise TrackingError(f"{what} answered {type(value).__name__}, not an object")
    return value


def _parts(values: Mapping[str, str], size: int) -> Iterator[list[dict[str, str]]]:
    rest = iter(values.items())
    while some := list(islice(rest, size)):
        yield [{"key": key, "value": value[:MOST_TEXT]} for key, value in some]


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
