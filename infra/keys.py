"""The API keys: one small file, ``<home>/keys.json``, that commands change and gateways follow.

A secret is ``rk_`` and 32 random bytes, shown once and kept nowhere: the file has its SHA-256.
A slow password hash would add nothing, since 256 random bits cannot be guessed, and it would
cost every request; looking a digest up also leaks nothing by its timing, since nobody can
choose digests that come close to one in the file.

Gateways on other machines need the same file: a shared mount, or whatever distributes
configuration there. Each looks at it every second, so a revoked key is refused about a second
after the file arrives.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from ratchet.schemas.errors import KeysError
from ratchet.schemas.explain import explain
from ratchet.schemas.keys import Key, Keys, KeyScope

log = logging.getLogger("ratchet.keys")
FILE_NAME = "keys.json"
PREFIX = "rk_"
_HIDDEN = frozenset({"sha256"})
Signature = tuple[int, int, int]


def digest(secret: str | bytes) -> str:
    """The SHA-256 that a secret is known by, in hex."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


class KeyFile:
    """Reads the file and changes it: one writer at a time, and a reader sees the old file or the new."""

    def __init__(self, path: Path) -> None:
        """Name the file; it is touched by the calls below only."""
        self.path = path

    def read(self) -> list[Key]:
        """Every key, the revoked too; none where no key was ever created.

        Raises:
            KeysError: there is a file and it cannot be read, or is no key file.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            self._is_absent()
            return []
        except OSError as error:
            raise KeysError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        try:
            return Keys.model_validate_json(raw).keys
        except ValidationError as error:
            not_json = error.errors()[0]["type"] == "json_invalid"
            problem = "not JSON" if not_json else explain(error, _HIDDEN)
            raise KeysError(f"{self.path}: not a key file: {problem}") from None

    def signature(self) -> Signature | None:
        """What changes whenever the file does; None where there is no file.

        Raises:
            KeysError: it cannot be looked at.
        """
        try:
            seen = self.path.stat()
        except FileNotFoundError:
            self._is_absent()
            return None
        except OSError as error:
            raise KeysError(f"{self.path}: cannot be read: {error.strerror or error}") from None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size

    def _is_absent(self) -> None:
        """A link that leads nowhere is a mount that failed, not a machine without keys."""
        if self.path.is_symlink():
            raise KeysError(f"{self.path}: a link to a file that is not there")

    def create(
        self,
        name: str,
        tenant: str,
        scopes: Sequence[KeyScope],
        now: datetime,
        requests_per_minute: int | None = None,
    ) -> tuple[Key, str]:
        """Make a key.

        Args:
            name: for people.
            tenant: whose traffic it speaks for.
            scopes: what it may do.
            now: the present instant.
            requests_per_minute: its limit at each gateway process; None: no limit.

        Returns:
            The key, and its secret: this is the only time that anyone sees it.

        Raises:
            KeysError: a field is wrong, or the file cannot be read or written.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._changing() as keys:
            taken = {key.id for key in keys}
            id = next(id for id in iter(lambda: secrets.token_hex(4), "") if id not in taken)
            try:
                key = Key(
                    id=id,
                    name=name,
                    tenant=tenant,
                    scopes=list(dict.fromkeys(scopes)),
                    sha256=digest(secret),
                    created_at=now,
                    requests_per_minute=requests_per_minute,
                )
            except ValidationError as error:
                raise KeysError(explain(error, _HIDDEN)) from None
            keys.append(key)
        return key, secret

    def revoke(self, id: str, now: datetime) -> Key:
        """Take a key out of use for ever; doing it again changes nothing.

        Raises:
            KeysError: no key has this id, or the file cannot be read or written.
        """
        with self._changing() as keys:
            place = next((place for place, key in enumerate(keys) if key.id == id), None)
            if place is None:
                # A secret that was given by mistake is not repeated.
                named = "this id (it looks like a secret)" if id.startswith(PREFIX) else f"the id {id!r}"
                raise KeysError(f"no key has {named}; `ratchet keys list` shows the ids")
            if keys[place].revoked_at is None:
                keys[place] = keys[place].model_copy(update={"revoked_at": now})
        return keys[place]

    @contextmanager
    def _changing(self) -> Iterator[list[Key]]:
        """The keys, to be changed in place while no other process does; written if nothing was raised."""
        import fcntl  # here, since Windows has none: following a file works there, changing it does not

        # The file behind a link is the one that others read: changing it must not put a copy in the link's place.
        target = self.path.resolve()
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(target.with_name(f".{target.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise KeysError(f"{self.path}: cannot be changed: {error.strerror or error}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            keys = self.read()
            yield keys
            self._write(target, keys)
        finally:
            os.close(lock)

    def _write(self, target: Path, keys: list[Key]) -> None:
        """Put a whole new file in the old one's place, also across a crash of the machine."""
        raw = Keys(keys=keys).model_dump_json(indent=2, exclude_none=True).encode() + b"\n"
        scratch = target.with_name(f".{target.name}.new")
        try:
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as out:
                self._keep_access(descriptor)
                out.write(raw)
                out.flush()
                os.fsync(descriptor)
            scratch.replace(target)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise KeysError(f"{self.path}: cannot be written: {error.strerror or error}") from None

    def _keep_access(self, descriptor: int) -> None:
        """Whoever could read the old file can read the new one: else a gateway would never see a revocation."""
        try:
            old = self.path.stat()
        except FileNotFoundError:
            os.fchmod(descriptor, 0o600)
            return
        mine = os.fstat(descriptor)
        if (old.st_uid, old.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(descriptor, old.st_uid, old.st_gid)
        os.fchmod(descriptor, old.st_mode & 0o777)


class Keyring:
    """The keys as a long-running process sees them: read at once, then looked at again by `refresh`.

    It closes and never opens. Where the file is gone or can no longer be read, the last good keys
    stay in force; where there were none yet, nobody is let in.
    """

    def __init__(self, file: KeyFile) -> None:
        """Read the file.

        Raises:
            KeysError: there is a file and it cannot be used.
        """
        self._file = file
        self._seen = file.signature()
        self._keys = _by_digest(file.read())
        self.problem: str | None = None
        """Why the file could not be read at the last look; None: it could."""

    @property
    def keys(self) -> Mapping[str, Key] | None:
        """Each key by its digest, the revoked too; None where no key was ever created."""
        return self._keys

    def refresh(self) -> None:
        """Read the file again if it changed; blocks on the disk, so call it off the event loop."""
        problem = None
        try:
            seen = self._file.signature()
            if seen == self._seen and self.problem is None:
                return
            keys = _by_digest(self._file.read())
            if keys is None and self._keys is not None:
                raise KeysError(f"{self._file.path}: is gone")
            # The signature is from before the reading: a change in between is seen at the next look.
            self._keys, self._seen = keys, seen
        except KeysError as error:
            problem = str(error)
            self._keys = {} if self._keys is None else self._keys
            if problem != self.problem:
                log.error("the last good keys stay in force: %s", problem)
        self.problem = problem


def _by_digest(keys: list[Key]) -> dict[str, Key] | None:
    return {key.sha256: key for key in keys} or None
