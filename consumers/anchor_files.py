"""A task's frozen answers in a file beside ``ratchet.toml``: drawn or brought, frozen, read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from ratchet.consumers.calibration import Questions
from ratchet.consumers.rules.anchors import Anchor, set_hash
from ratchet.consumers.rules.phrases import hollow
from ratchet.schemas.errors import DatasetError
from ratchet.schemas.events import Request, Response
from ratchet.schemas.explain import explain


@dataclass(frozen=True)
class Anchors:
    """A task's frozen answers, in the order of their file, by id."""

    task: str
    path: Path
    by_id: Mapping[str, Anchor]

    @property
    def hash(self) -> str:
        """What tells this set from every other."""
        return set_hash(list(self.by_id))

    @property
    def frozen_at(self) -> datetime:
        """Since when scores of it are compared."""
        return max(one.frozen_at for one in self.by_id.values() if one.frozen_at is not None)


def path_of(folder: Path, task: str) -> Path:
    """Where a task's anchors lie: beside ``ratchet.toml``."""
    return folder / "anchors" / f"{task}.jsonl"


def read(task: str, path: Path) -> list[Anchor]:
    """Read a file of anchors, frozen or not.

    Raises:
        DatasetError: names the line that is no anchor or is there twice, or the file that holds none.
    """
    return [one for _, one in _lines(task, path)]


def load(task: str, path: Path) -> Anchors:
    """Read a task's frozen anchors.

    Raises:
        DatasetError: as `read`; or a line was never frozen, or changed since.
    """
    found = {}
    for number, one in _lines(task, path):
        id = one.content_id(task)
        if one.id != id or one.frozen_at is None:
            was = "was never frozen" if one.id is None or one.frozen_at is None else "changed since it was frozen"
            again = f"ratchet judge anchors freeze {task} --from {path} --replace"
            raise DatasetError(f"{path}: line {number} {was}; freeze the set anew: {again}")
        found[id] = one
    return Anchors(task, path, found)


def without(task: str, path: Path, inference_ids: Collection[str]) -> list[Anchor]:
    """A task's file less the anchors that were drawn from these inferences; returns those.

    The others keep their ids and their instant, so their scores still compare; a set that changed has another hash.

    Raises:
        DatasetError: the file cannot be read or written.
    """
    anchors = read(task, path)
    gone = [one for one in anchors if one.inference_id in inference_ids]
    if gone:
        kept = [one for one in anchors if one.inference_id not in inference_ids]
        _write(path, kept)
    return gone


def _write(path: Path, anchors: Iterable[Anchor]) -> None:
    text = "".join(one.model_dump_json(exclude_none=True) + "\n" for one in anchors)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}") from None


def _lines(task: str, path: Path) -> list[tuple[int, Anchor]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; make it with: ratchet judge anchors freeze {task}") from None
    found: list[tuple[int, Anchor]] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            one = Anchor.model_validate_json(line)
        except ValidationError as error:
            raise DatasetError(f"{path}: line {number}: {explain(error)}") from None
        first = seen.setdefault(one.content_id(task), number)
        if first != number:
            raise DatasetError(f"{path}: line {number}: the same as line {first}; allowed: each answer once")
        found.append((number, one))
    if not found:
        raise DatasetError(f"{path}: no anchors in it")
    return found


def draw(store: Questions, task: str, most: int, least: int) -> list[Anchor]:
    """Draw anchors from stored answers that people labelled, half of them good and half bad where there are so many.

    Raises:
        DatasetError: fewer than ``least`` to draw from.
    """
    found: list[Anchor] = []
    left = {True: most // 2, False: most // 2}
    for row in store.query("anchor_candidates", task=task, half=most):
        request, response = Request.model_validate_json(row["request"]), Response.model_validate_json(row["response"])
        if not left[row["label"] > 0.5] or (not response.tool_calls and hollow(response.content or "")):
            continue  # no judge is asked about a hollow answer
        left[row["label"] > 0.5] -= 1
        anchor = Anchor(
            messages=request.messages,
            prompt=request.prompt,
            answer=response.content or response.tool_calls or "",
            label=row["label"],
            adapter=row["adapter"],
            inference_id=row["id"],
        )
        found.append(anchor)
    if len(found) < least:
        raise DatasetError(
            f"task {task}: {len(found)} labelled answers to draw anchors from, of {least} that it takes; send feedback,"
            " keep labels (ratchet judge calibrate --labels FILE --keep), or name a file: --from FILE"
        )
    return found


def freeze(task: str, path: Path, anchors: Iterable[Anchor], at: datetime) -> Anchors:
    """Write anchors with the ids of their content and the instant from which their scores are compared.

    Of the same content one is kept.

    Raises:
        DatasetError: the file cannot be written.
    """
    frozen = {one.content_id(task): one for one in anchors}
    by_id = {id: one.model_copy(update={"id": id, "frozen_at": at}) for id, one in frozen.items()}
    _write(path, by_id.values())
    return Anchors(task, path, by_id)
