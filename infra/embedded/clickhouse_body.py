"""Bodies of ClickHouse's HTTP interface: spooling, content encodings and multipart forms."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import lz4.frame

from ratchet.infra.embedded.clickhouse_engine import EngineError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_READ = 1 << 20
CANNOT_DECOMPRESS, CANNOT_PARSE = 271, 26
_DECODERS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": lambda: zlib.decompressobj(31),
    "deflate": lambda: zlib.decompressobj(15),
}
# What ClickHouse's INFILE unpacks by itself, outside Python and its GIL.
INFILE_ENCODINGS = frozenset({"", "lz4", "zstd", "gzip"})


class Spool:
    """A request's body: in memory while it is small, then in a file.

    Args:
        path: the file, made only when it is needed.
        memory: bytes to hold before that.
    """

    def __init__(self, path: Path, memory: int = 1 << 20) -> None:
        self.path = path
        self._memory = memory
        self._held = bytearray()
        self._size = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes; a write to the page cache, short enough for an event loop.

        Raises:
            OSError: the disk is full.
        """
        self._held += chunk
        if len(self._held) > self._memory:
            self.save()

    def save(self) -> Path:
        """Have all of it in the file; returns the file."""
        with self.path.open("ab") as file:
            self._size += file.write(self._held)
        self._held = bytearray()
        return self.path

    def chunks(self) -> Iterator[bytes]:
        """Read it from the start."""
        if self._size:
            with self.path.open("rb") as file:
                while piece := file.read(_READ):
                    yield piece
        if self._held:
            yield bytes(self._held)

    def remove(self) -> None:
        """Forget the body and its file."""
        self._held = bytearray()
        self.path.unlink(missing_ok=True)


def decode(encoding: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Undo a Content-Encoding, of one frame or several in a row.

    Raises:
        EngineError: an unknown encoding, or bytes that are not of it.
    """
    if encoding in ("", "identity"):
        yield from chunks
        return
    if encoding not in _DECODERS:
        raise EngineError(f"Code: 48. DB::Exception: Unknown Content-Encoding {encoding!r}. (NOT_IMPLEMENTED)")
    make = _DECODERS[encoding]
    decoder = make()
    begun = False
    try:
        for chunk in chunks:
            while chunk:
                if decoder.eof:
                    decoder = make()
                begun = True
                yield decoder.decompress(chunk)
                chunk = (decoder.unused_data or b"") if decoder.eof else b""
    except (RuntimeError, EOFError, zlib.error, zstd.ZstdError) as error:
        raise _undecodable(encoding, str(error)) from error
    if begun and not decoder.eof:
        raise _undecodable(encoding, "it ends in the middle")


def _undecodable(encoding: str, why: str) -> EngineError:
    return EngineError(
        f"Code: {CANNOT_DECOMPRESS}. DB::Exception: The body is not {encoding}: {why}. (CANNOT_DECOMPRESS)"
    )


class Encoder:
    """Encode a response body piece by piece.

    Args:
        accepted: the request's Accept-Encoding; the first encoding known here is taken.
    """

    def __init__(self, accepted: str) -> None:
        wanted = [part.split(";")[0].strip() for part in accepted.split(",")]
        self.name = next((name for name in wanted if name in _DECODERS), "")
        self._lz4: Any = None
        self._stream: Any = None
        if self.name == "zstd":
            self._stream = zstd.ZstdCompressor(level=1)
        elif self.name in ("gzip", "deflate"):
            self._stream = zlib.compressobj(1, wbits=31 if self.name == "gzip" else 15)

    def __call__(self, piece: bytes) -> bytes:
        """Encode one piece; may give nothing yet."""
        if self.name == "lz4":
            first = self._lz4 is None
            self._lz4 = self._lz4 or lz4.frame.LZ4FrameCompressor()
            return bytes((self._lz4.begin() if first else b"") + self._lz4.compress(piece))
        return bytes(self._stream.compress(piece)) if self._stream else piece

    def finish(self) -> bytes:
        """The end of the encoded body."""
        if self.name == "lz4":
            return bytes(self._lz4.flush()) if self._lz4 else b""
        return bytes(self._stream.flush()) if self._stream else b""


def multipart(body: bytes, content_type: str) -> dict[str, str]:
    """The text fields of a ``multipart/form-data`` body (long bound parameters come this way).

    Raises:
        EngineError: no boundary, a field without a name, or a file (external tables are not offered here).
    """
    _, _, boundary = content_type.partition("boundary=")
    boundary = boundary.split(";")[0].strip().strip('"')
    if not boundary:
        raise EngineError(
            f"Code: {CANNOT_PARSE}. DB::Exception: The form has no boundary. (CANNOT_PARSE_QUOTED_STRING)"
        )
    fields: dict[str, str] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:]:
        if part.startswith(b"--"):
            break
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next(
            (line for line in head.decode().splitlines() if line.lower().startswith("content-disposition:")), ""
        )
        names = dict(item.strip().split("=", 1) for item in disposition.split(";")[1:] if "=" in item)
        if "filename" in names or "name" not in names:
            raise EngineError("Code: 48. DB::Exception: External tables are not supported here. (NOT_IMPLEMENTED)")
        fields[names["name"].strip('"')] = value.decode()
    return fields
