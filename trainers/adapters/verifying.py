"""An adapter's files are checked before they are loaded: those that were registered, and nothing beside them.

The first eight digits of the weights' hash are in the adapter's name, the whole hash and those of the other
files in its manifest. What is checked is the files, not what the folder says of itself.
"""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ratchet.schemas.errors import AdapterRefused
from ratchet.schemas.ids import ADAPTER_NAME
from ratchet.trainers.registry import CONFIG, MANIFEST, ORIGIN, WEIGHTS, Placed, file_sha256
from ratchet.trainers.rules.weights import MODEL_CONFIG, MODEL_FILES, MODEL_WEIGHTS

_STATE = tuple[int, int, int, int]
_UNFINISHED = re.compile(rf"^\.{re.escape(MANIFEST)}\.[0-9]+$")
"""A manifest whose writer was killed; nothing reads it."""
LOADABLE = (".safetensors", ".json")


class FileHashes:
    """Hashes of files, taken again only when a file changed.

    A file counts as unchanged while its size, its inode and both its times are: whoever writes to a file can set
    its time of modification back, but not its time of change.

    Args:
        read: takes a file's SHA-256.
    """

    def __init__(self, read: Callable[[Path], str] = file_sha256) -> None:
        self._read = read
        self._known: dict[Path, tuple[_STATE, str]] = {}
        self._lock = threading.Lock()

    def sha256(self, file: Path) -> str:
        """The file's SHA-256, in hex; raises OSError."""
        with self._lock:
            now = file.lstat()
            state = (now.st_size, now.st_ino, now.st_mtime_ns, now.st_ctime_ns)
            known = self._known.get(file)
            if known is None or known[0] != state:
                known = (state, self._read(file))
                self._known[file] = known
            return known[1]


def verify(folder: Path, name: str, weights_sha256: str, files: Mapping[str, str], hashes: FileHashes) -> None:
    """See that an adapter's folder holds what was registered under its name.

    Args:
        folder: where it lies.
        name: the adapter.
        weights_sha256: of its weights, as its manifest says.
        files: SHA-256 by name of every file that may be loaded; empty where an older manifest knows the weights' alone.
        hashes: remembers what was read.

    Raises:
        AdapterRefused: names the file, and the expected and the found hash.
    """
    named = ADAPTER_NAME.match(name)
    if named is None or named["sha8"] != weights_sha256[:8]:
        raise AdapterRefused(f"{name}: its manifest has weights of another hash, {weights_sha256}")
    expected = dict(files) or {WEIGHTS: weights_sha256}
    weights, config = (MODEL_WEIGHTS, MODEL_CONFIG) if MODEL_WEIGHTS in expected else (WEIGHTS, CONFIG)
    if expected.get(weights) != weights_sha256:
        raise AdapterRefused(f"{name}: its manifest contradicts itself: {weights} {expected.get(weights)}")
    try:
        there = {path.name: path.lstat().st_mode for path in folder.iterdir()}
    except OSError as error:
        raise AdapterRefused(f"{name}: {folder}: {error.strerror}, so its files cannot be checked") from error
    allowed = {*expected, config, MANIFEST, ORIGIN}
    for file, mode in sorted(there.items()):
        if _UNFINISHED.match(file):
            continue
        loadable = file.endswith(LOADABLE) or file in MODEL_FILES
        if file not in allowed or not loadable or not stat.S_ISREG(mode):
            raise AdapterRefused(
                f"{name}: {folder / file} does not belong there; allowed: {', '.join(sorted(allowed))} as plain files"
            )
    for file in sorted({*expected, config}):
        if file not in there:
            raise AdapterRefused(f"{name}: {folder / file} is missing")
    for file, wanted in sorted(expected.items()):
        try:
            found = hashes.sha256(folder / file)
        except OSError as error:
            raise AdapterRefused(f"{name}: {folder / file}: {error.strerror}") from error
        if found != wanted:
            raise AdapterRefused(
                f"{name}: {folder / file} was changed since it was registered: expected sha256 {wanted}, found {found}"
            )


def verify_placed(placed: Placed) -> None:
    """See that an adapter that is not registered yet lies as it was placed; raises as `verify`."""
    verify(placed.folder, placed.name, placed.weights_sha256, placed.files, FileHashes())
