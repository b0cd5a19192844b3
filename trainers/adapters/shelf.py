"""Where this machine has its adapters, how it gets and gives them; the only way from there to whatever loads one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ratchet.infra.artifacts import ArtifactStore
from ratchet.schemas.decoding import parse
from ratchet.schemas.errors import AdapterRefused, ArtifactError, InvalidEvent
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import ADAPTER_NAME
from ratchet.trainers.adapters.verifying import FileHashes, verify
from ratchet.trainers.registry import MANIFEST, SCRATCH


class Shelf:
    """Gives the folders of adapters to those who load them, after a check of the files.

    Args:
        home: Ratchet's home; adapters that were pulled lie in ``home/adapters`` as trained ones do.
        store: where adapters are pushed to and pulled from; None: there is no such place.
        hashes: remembers what was read, so that a check of unchanged files reads none.
    """

    def __init__(self, home: Path, store: ArtifactStore | None = None, hashes: FileHashes | None = None) -> None:
        self._shelf = home.resolve() / "adapters"
        self._store = store
        self._hashes = hashes or FileHashes()

    def folder(self, adapter: Adapter) -> Path:
        """The folder to load an adapter from; where it is not here it is pulled.

        Args:
            adapter: its manifest, as the registry's topic or table has it.

        Raises:
            AdapterRefused: its files are not those that were registered, or are not to be had.
        """
        here = next((one for one in (Path(adapter.path), self._shelf / adapter.name) if one.is_dir()), None)
        if here is None:
            try:
                return self.pull(adapter)
            except ArtifactError as error:
                raise AdapterRefused(f"{adapter.name}: {adapter.path} is not here, and {error}") from error
        verify(here, adapter.name, adapter.weights_sha256, adapter.files, self._hashes)
        return here

    def push(self, adapter: Adapter) -> bool:
        """Publish an adapter's files and manifest; False where they are published already.

        Raises:
            AdapterRefused: its files are not those that were registered.
            ArtifactError: there is no store, it is away, or has another adapter under the name.
        """
        verify(Path(adapter.path), adapter.name, adapter.weights_sha256, adapter.files, self._hashes)
        known = self.published(adapter.name)
        if known is not None and known.status == "retired":
            raise ArtifactError(f"{self._needed().address}: {adapter.name} is retired: {known.reason}")
        if known is not None and known.files == adapter.files:
            return False  # whatever else an older or newer version writes into a manifest
        return self._needed().publish(adapter.name, Path(adapter.path), _files(adapter), adapter.to_bytes())

    def push_registered(self, adapter: Adapter) -> None:
        """Publish what training has just registered, where there is a store; what cannot be rolled out stays here.

        Raises:
            AdapterRefused: as `push`.
            ArtifactError: likewise.
        """
        if self._store is not None and adapter.status == "registered" and adapter.files:
            self.push(adapter)

    def published(self, name: str) -> Adapter | None:
        """What the store says of a name; None where it was never published.

        Raises:
            ArtifactError: there is no store, it is away, or what it has is no manifest.
        """
        raw = self._needed().manifest(name) if ADAPTER_NAME.match(name) else None
        try:
            found = None if raw is None else parse(Adapter, raw)
        except InvalidEvent as error:
            raise ArtifactError(f"{self._needed().address}/{name}: {error}") from error
        if found is not None and found.name != name:
            raise ArtifactError(f"{self._needed().address}/{name}: its manifest is of {found.name}")
        return found

    def pull(self, adapter: Adapter) -> Path:
        """Fetch an adapter's files; its folder appears whole or not at all, and is there already the second time.

        Args:
            adapter: its manifest; the files are held to it, whatever the store's own says.

        Raises:
            AdapterRefused: what lies here under its name is not what was registered.
            ArtifactError: it was never published or is retired, its files differ, or the store is away.
        """
        folder = self._shelf / adapter.name
        if not folder.is_dir():
            known = self.published(adapter.name)
            if known is None:
                raise ArtifactError(f"{self._needed().address}: {adapter.name} was never published")
            if known.status == "retired":
                raise ArtifactError(f"{self._needed().address}: {adapter.name} is retired: {known.reason}")
            self._fetch(adapter, folder)
        verify(folder, adapter.name, adapter.weights_sha256, adapter.files, self._hashes)
        return folder

    def _fetch(self, adapter: Adapter, folder: Path) -> None:
        try:
            self._shelf.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=self._shelf))
            try:
                self._needed().fetch(adapter.name, _files(adapter), scratch)
                (scratch / MANIFEST).write_bytes(adapter.model_dump_json(by_alias=True, indent=2).encode())
                scratch.chmod(0o755)
                scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            if not folder.is_dir():  # another process was quicker, and its folder is checked like ours
                raise ArtifactError(
                    f"{error.filename or folder}: {error.strerror}: {adapter.name} is not kept"
                ) from error

    def _needed(self) -> ArtifactStore:
        if self._store is None:
            raise ArtifactError("no artifact store is set (`artifacts`: a folder or s3://bucket/prefix)")
        return self._store


def _files(adapter: Adapter) -> dict[str, str]:
    """What is published of an adapter."""
    if not adapter.files:
        raise ArtifactError(f"{adapter.name} has no files to publish or to fetch: {adapter.served_as or 'no hashes'}")
    return adapter.files
