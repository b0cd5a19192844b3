"""chDB, ClickHouse's own engine, behind plain values: statements in, bytes or an `EngineError` out.

One process may hold the data directory, and in it any number of connection handles, one a
thread; they run in parallel and release the GIL. A handle remembers ``USE`` and ``SET`` as a
session does, so each thread keeps its handles by the database and settings they were made for.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratchet.infra.clickhouse.sql import first_word, output_format
from ratchet.schemas.errors import StartError

_SETTING = re.compile(r"[A-Za-z_]\w*\Z")
_CODE = re.compile(r"Code: (\d+)\. DB::Exception: ")
_HANDLES_A_THREAD = 4
# Statements that change the handle they run on: it is closed afterwards.
_STICKY = frozenset({"SET", "USE"})
_WITH_OUTPUT = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "DESC", "EXISTS", "EXPLAIN", "CHECK"})
# chDB streams a result block by block, each block encoded by itself: the blocks make one
# valid result only in formats that have no header and no footer.
_STREAMABLE = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})
NO_SPACE, NOT_IMPLEMENTED, UNKNOWN_SETTING = 243, 48, 115


class EngineError(Exception):
    """The engine refused a statement.

    Args:
        text: ClickHouse's own sentence, ``Code: N. DB::Exception: … (NAME)``.
    """

    def __init__(self, text: str) -> None:
        found = _CODE.search(text)
        # chDB repeats the prefix when an error passes through INFILE
        text = _CODE.sub("", text[found.end() :]) if found else text
        self.code = int(found.group(1)) if found else 1002
        if "No space left on device" in text:
            self.code = NO_SPACE
        super().__init__(f"Code: {self.code}. DB::Exception: {text.strip()}")


@dataclass(frozen=True)
class Statement:
    """One statement with all that it depends on."""

    text: str
    params: Mapping[str, str] = field(default_factory=dict)
    """Bound parameters by bare name, in ClickHouse's escaped text form."""
    database: str = "default"
    settings: Mapping[str, str] = field(default_factory=dict)
    default_format: str = "TabSeparated"

    @property
    def format(self) -> str:
        """The output format: the statement's own FORMAT clause, else the default."""
        return output_format(self.text) or self.default_format

    @property
    def streamable(self) -> bool:
        """Whether `Engine.stream` may run it."""
        return first_word(self.text) in ("SELECT", "WITH") and self.format in _STREAMABLE


@dataclass(frozen=True)
class Result:
    """What a statement gave: its output, the format where it has an output at all, and counts."""

    data: bytes
    format: str | None
    summary: dict[str, str]


class Engine:
    """The one owner of a chDB directory; every method may be called from several threads.

    Args:
        folder: chDB's data lies in ``folder/chdb``, bodies of inserts in ``folder/inserts``.

    Raises:
        StartError: the folder belongs to another process, cannot be written, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        folder = folder.absolute()  # importing chDB changes the working directory for a moment
        self.inserts = folder / "inserts"
        self._path = str(folder / "chdb")
        if "?" in self._path:
            raise StartError(f"the ClickHouse data folder must not have a ? in its path: {folder}")
        self._local = threading.local()
        self._handles: set[Any] = set()
        self._lock = threading.Lock()
        try:
            self.inserts.mkdir(parents=True, exist_ok=True)
            self._claim = _claim(folder)
            for left in self.inserts.iterdir():  # of a crash: they were never acknowledged
                left.unlink()
        except OSError as error:
            raise StartError(f"ClickHouse cannot use the data folder {folder}: {error.strerror}") from error
        import chdb

        self._connect = chdb.connect
        try:
            self.version, self.timezone = self.run(Statement("SELECT version(), timezone()")).data.decode().split()
        except EngineError as error:
            raise StartError(f"ClickHouse cannot open the data folder {folder}: {error}") from error

    def run(self, statement: Statement) -> Result:
        """Run any statement to its end.

        Raises:
            EngineError: with ClickHouse's code and sentence.
        """
        sticky = first_word(statement.text) in _STICKY or "TEMPORARY" in statement.text[:100].upper()
        try:
            found = self._handle(statement).query(statement.text, statement.default_format, params=statement.params)
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        finally:
            if sticky:
                self._forget(statement)
        data = bytes(found.bytes() or b"")
        has_output = bool(data) or first_word(statement.text) in _WITH_OUTPUT
        summary = {
            "read_rows": found.storage_rows_read(),
            "read_bytes": found.storage_bytes_read(),
            "written_rows": found.rows_written(),
            "written_bytes": found.bytes_written(),
            "result_rows": found.rows_read() if has_output else 0,
            "result_bytes": len(data),
            "elapsed_ns": int(found.elapsed() * 1e9),
        }
        return Result(data, statement.format if has_output else None, {key: str(n) for key, n in summary.items()})

    def insert_file(self, statement: Statement, settings: str, form: str, file: Path, compression: str = "") -> Result:
        """Insert a file's rows.

        Args:
            statement: ``INSERT INTO t (columns)``, without FORMAT.
            settings: the statement's own SETTINGS clause or nothing.
            form: the input format.
            file: the data.
            compression: ``lz4``, ``zstd``, ``gzip``, ``br`` or nothing.

        Raises:
            EngineError: nothing of it is acknowledged; blocks before the bad row may be stored.
        """
        packed = f" COMPRESSION '{compression}'" if compression else ""
        path = str(file).replace("\\", "\\\\").replace("'", "\\'")
        text = f"{statement.text}\nFROM INFILE '{path}'{packed} {settings} FORMAT {form}"
        return self.run(Statement(text, statement.params, statement.database, statement.settings))

    def stream(self, statement: Statement) -> Iterator[bytes]:
        """Yield a SELECT's output block by block; the whole iteration belongs on one thread.

        Raises:
            EngineError: before the first block or between two.
        """
        found = None
        try:
            handle = self._handle(statement)
            found = handle.send_query(statement.text, statement.default_format, params=statement.params)
            for block in found:
                yield bytes(block.bytes())
        except RuntimeError as error:
            raise EngineError(str(error)) from error
        finally:
            # an abandoned stream would make the next query on this handle come back empty
            if found is not None:
                found.close()

    def close(self) -> None:
        """Close every handle, and with the last of them the engine; no statement may be running."""
        with self._lock:
            for handle in self._handles:
                handle.close()
            self._handles.clear()
        os.close(self._claim)

    def _handle(self, statement: Statement) -> Any:
        kept: OrderedDict[object, Any] = self._local.__dict__.setdefault("kept", OrderedDict())
        key = _key(statement)
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
        handle = self._connect(self._path)
        try:
            if statement.database != "default":
                name = statement.database.replace("\\", "\\\\").replace("`", "\\`")
                handle.query(f"USE `{name}`")
            if statement.settings:
                handle.query("SET " + ", ".join(f"{_name(k)} = {_quote(v)}" for k, v in statement.settings.items()))
        except BaseException:
            handle.close()
            raise
        with self._lock:
            self._handles.add(handle)
        kept[key] = handle
        if len(kept) > _HANDLES_A_THREAD:
            self._drop(kept.popitem(last=False)[1])
        return handle

    def _forget(self, statement: Statement) -> None:
        handle = self._local.__dict__.get("kept", {}).pop(_key(statement), None)
        if handle is not None:
            self._drop(handle)

    def _drop(self, handle: Any) -> None:
        with self._lock:
            self._handles.discard(handle)
        handle.close()


def _key(statement: Statement) -> object:
    return statement.database, tuple(sorted(statement.settings.items()))


def _name(setting: str) -> str:
    if not _SETTING.match(setting):
        raise EngineError(f"Code: {UNKNOWN_SETTING}. DB::Exception: Unknown setting {setting!r}. (UNKNOWN_SETTING)")
    return setting


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _claim(folder: Path) -> int:
    """Lock the folder for this process; the lock ends with the process, however it ends."""
    file = os.open(folder / "owner", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(file, 32).decode(errors="replace").strip()
        os.close(file)
        raise StartError(f"the ClickHouse data folder {folder} is in use by process {owner}") from None
    os.ftruncate(file, 0)
    os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
    return file
