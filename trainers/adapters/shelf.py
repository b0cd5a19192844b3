"""Where this machine has its adapters, and the only way from there to whatever loads one."""

from __future__ import annotations

from pathlib import Path

from ratchet.schemas.events import Adapter
from ratchet.trainers.adapters.verifying import FileHashes, verify


class Shelf:
    """Gives the folders of adapters to those who load them, after a check of the files.

    Args:
        hashes: remembers what was read, so that a check of unchanged files reads none.
    """

    def __init__(self, hashes: FileHashes | None = None) -> None:
        self._hashes = hashes or FileHashes()

    def folder(self, adapter: Adapter) -> Path:
        """The folder to load an adapter from.

        Raises:
            AdapterRefused: its files are not those that were registered, or are not here.
        """
        folder = Path(adapter.path)
        verify(folder, adapter.name, adapter.weights_sha256, adapter.files, self._hashes)
        return folder
