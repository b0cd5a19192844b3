"""The artifact store: folders of files at any address that fsspec knows (a folder, S3 and what speaks it).

``<address>/<name>/`` holds a folder's files and its ``manifest.json``. A folder is uploaded under ``.uploading/``,
moved file by file and its manifest comes last: whoever reads believes a folder only once its manifest is there,
and then checks every file against it. So a push that was killed anywhere has published nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from ratchet.schemas.errors import ArtifactError

MANIFEST = "manifest.json"
UPLOADING = ".uploading"
# What was listed a moment ago may be published by now. A store that hangs must not hold a worker for minutes.
_OPTIONS: dict[str, dict[str, Any]] = {
    "file": {"auto_mkdir": True},
    "s3": {
        "use_listings_cache": False,
        "skip_instance_cache": True,
        "config_kwargs": {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 3}},
    },
}


class ArtifactStore:
    """Publishes folders and fetches them.

    Args:
        address: a local folder, or ``scheme://bucket/prefix``; S3's keys, region and endpoint are those of the
            process's own AWS configuration.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")

    @cached_property
    def _at(self) -> tuple[Any, str]:
        import fsspec

        scheme, separator, _ = self.address.partition("://")
        options = _OPTIONS.get(scheme if separator else "file", {})
        with self._told("cannot be used"):
            files, root = fsspec.core.url_to_fs(self.address, **options)
        return files, str(root).rstrip("/")

    def names(self) -> list[str]:
        """What was published, retired folders too, sorted.

        Raises:
            ArtifactError: the store refused or is away.
        """
        files, root = self._at
        with self._told("cannot be listed"):
            found = [PurePosixPath(path).name for path in _list(files, root)]
            return sorted(one for one in found if one != UPLOADING and _there(files, f"{root}/{one}/{MANIFEST}"))

    def manifest(self, name: str) -> bytes | None:
        """The manifest of a published folder; None where nothing was published under the name.

        Raises:
            ArtifactError: the store refused or is away.
        """
        files, root = self._at
        with self._told(f"{name}/{MANIFEST} cannot be read"):
            try:
                return bytes(files.cat_file(f"{root}/{name}/{MANIFEST}"))
            except FileNotFoundError:
                return None

    def publish(self, name: str, folder: Path, files: Mapping[str, str], manifest: bytes) -> bool:
        """Publish a folder under a name that is given once.

        Args:
            name: of the folder in the store.
            folder: where it lies here.
            files: SHA-256 by name of the files to publish.
            manifest: says what they are; what was uploaded last.

        Returns:
            False where this very folder is published already.

        Raises:
            ArtifactError: another folder has the name, a file here is not what the manifest says, or the store
                refused or is away; nothing is published then.
        """
        known = self.manifest(name)
        if known is not None:
            if known == manifest:
                return False
            raise ArtifactError(f"{self.address}/{name} is published with another manifest; names are never reused")
        at, root = self._at
        scratch = f"{root}/{UPLOADING}/{name}-{uuid.uuid4().hex}"
        with self._told(f"{name} cannot be published"):
            for file, sha256 in sorted(files.items()):
                if (found := _sha256(folder / file)) != sha256:
                    raise ArtifactError(f"{folder / file}: expected sha256 {sha256}, found {found}: not published")
                at.put_file(str(folder / file), f"{scratch}/{file}")
            at.pipe_file(f"{scratch}/{MANIFEST}", manifest)
            for file in (*sorted(files), MANIFEST):
                at.mv(f"{scratch}/{file}", f"{root}/{name}/{file}")
            self._remove(scratch)
        return True

    def fetch(self, name: str, files: Mapping[str, str], into: Path) -> None:
        """Copy a published folder's files here and check each.

        Args:
            name: of the folder in the store.
            files: SHA-256 by name of the files to fetch.
            into: an empty folder.

        Raises:
            ArtifactError: a file is missing or is not what was published, or the store refused or is away.
        """
        at, root = self._at
        for file, sha256 in sorted(files.items()):
            with self._told(f"{name}/{file} cannot be fetched"):
                at.get_file(f"{root}/{name}/{file}", str(into / file))
            if (found := _sha256(into / file)) != sha256:
                raise ArtifactError(f"{self.address}/{name}/{file}: expected sha256 {sha256}, found {found}: not used")

    def retire(self, name: str, manifest: bytes) -> None:
        """Take a folder's files away and leave a manifest that says why: its name is never given again.

        Raises:
            ArtifactError: the store refused or is away; doing it again goes on.
        """
        at, root = self._at
        with self._told(f"{name} cannot be retired"):
            at.pipe_file(f"{root}/{name}/{MANIFEST}", manifest)
            for path in _list(at, f"{root}/{name}"):
                if PurePosixPath(path).name != MANIFEST:
                    at.rm_file(path)

    def unfinished(self, before: datetime) -> list[str]:
        """Uploads that were begun and given up before an instant (a killed push leaves its files).

        Raises:
            ArtifactError: the store refused or is away.
        """
        at, root = self._at
        with self._told("cannot be listed"):
            begun = [PurePosixPath(path).name for path in _list(at, f"{root}/{UPLOADING}")]
            return sorted(one for one in begun if self._last_write(f"{root}/{UPLOADING}/{one}") < before)

    def discard(self, unfinished: str) -> None:
        """Take away what an upload that was given up left.

        Raises:
            ArtifactError: the store refused or is away.
        """
        with self._told(f"{unfinished} cannot be removed"):
            self._remove(f"{self._at[1]}/{UPLOADING}/{unfinished}")

    def _last_write(self, folder: str) -> datetime:
        at = self._at[0]
        return max((at.modified(path) for path in _list(at, folder)), default=datetime.min.replace(tzinfo=UTC))

    def _remove(self, folder: str) -> None:
        at = self._at[0]
        if _there(at, folder):  # an object store has no empty folders
            at.rm(folder, recursive=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except ArtifactError:
            raise
        except Exception as error:
            # each kind of store has errors of its own, most of them without a common base
            raise ArtifactError(f"{self.address}: {what}: {str(error) or type(error).__name__}") from error


# fsspec's own `exists`, `glob` and `find` take a store that is away for an empty one.
def _list(files: Any, folder: str) -> list[str]:
    try:
        return [str(path) for path in files.ls(folder, detail=False)]
    except FileNotFoundError:
        return []


def _there(files: Any, path: str) -> bool:
    try:
        files.info(path)
    except FileNotFoundError:
        return False
    return True


def _sha256(file: Path) -> str:
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()
