"""A log on disk of records on their way to Kafka: appended before they are sent, deleted when confirmed.

A folder of segments, each named by its first record's sequence number, and a file with the
position up to which everything is confirmed. `append` writes into the operating system's page
cache before it returns, so what it took survives the process being killed at any moment; what
a power loss can take is said at `sync`.

One thread may append while another reads, confirms and syncs.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from ratchet.infra.kafka.config import log
from ratchet.infra.kafka.frames import Entry, decode, encode
from ratchet.schemas.errors import BrokerError, StartError

SEGMENT_BYTES = 8 * 2**20
_ROOM = 2**20
_SEGMENT = re.compile(r"\d{20}\.log")
_POSITION = struct.Struct("<QI")  # a sequence number and its CRC32


class Segment:
    """One file of the log."""

    def __init__(self, path: Path, size: int, file: int | None = None) -> None:
        """Describe the file at ``path``; ``file`` is open while its bytes may not be on the disk yet."""
        self.first = int(path.stem)
        self.path = path
        self.size = size
        self.file = file
        self.dirty = False

    def close(self) -> None:
        """Let go of the file."""
        if self.file is not None:
            os.close(self.file)
            self.file = None


class Spool:
    """An append-only log with checksums and a limit to its size; its folder belongs to one process."""

    def __init__(self, folder: Path, max_bytes: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open the folder, made where it is missing, and recover what an earlier process left in it.

        Args:
            folder: where the files lie.
            max_bytes: all segments together; more is refused.
            segment_bytes: after how many bytes a new segment begins. A segment is deleted as a
                whole, so up to one of them may hold records that were confirmed long ago.

        Raises:
            StartError: another process has the folder, or it cannot be written.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._segment_bytes = min(segment_bytes, max_bytes)
        self._segments: list[Segment] = []
        self._active: Segment | None = None
        # two counters that only grow, each of one thread, instead of one that both change
        self._written = self._deleted = 0
        self.next = 0
        """The sequence number that the next record gets."""
        self.confirmed = 0
        """Everything before this sequence number is delivered."""
        self._lock = self._position = -1
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._position = os.open(folder / "position", os.O_RDWR | os.O_CREAT, 0o600)
            self._recover()
        except BlockingIOError:
            os.close(self._lock)
            raise StartError(f"spool: {folder} is in use by another process; end it, or set another home") from None
        except OSError as error:
            if self._lock >= 0:
                os.close(self._lock)
            raise StartError(f"spool: cannot use {folder}: {error.strerror or error}") from None

    @property
    def size(self) -> int:
        """Bytes of all segments, up to one segment of confirmed records among them."""
        return self._written - self._deleted

    def has_room(self) -> bool:
        """Whether records of usual size are taken now: below the limit, and on a disk that is not full."""
        room = min(_ROOM, self._max_bytes // 16)
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return False
        return self.size + room <= self._max_bytes and disk.f_bavail * disk.f_frsize >= room

    def append(self, topic: str, key: bytes | None, value: bytes) -> int:
        """Write one record and return its sequence number; a kill of this process does not lose it.

        Raises:
            BrokerError: the limit is reached, or the disk does not take it; nothing was kept.
        """
        frame = encode(self.next, topic, key, value)
        if self.size + len(frame) > self._max_bytes:
            raise BrokerError(
                f"{topic}: Kafka does not keep up and the spool is full ({self.size} of {self._max_bytes} bytes)"
            )
        try:
            segment = self._active
            if segment is None or segment.size >= self._segment_bytes:
                segment = self._active = self._begin()
            assert segment.file is not None
            # at an offset: what a write that failed left behind is overwritten, or passed over as no record
            written = os.pwrite(segment.file, frame, segment.size)
            if written < len(frame):
                written += os.pwrite(segment.file, frame[written:], segment.size + written)
        except OSError as error:
            self._give_up_on_segment()
            raise BrokerError(f"{topic}: the spool cannot be written: {error.strerror}") from None
        if written < len(frame):
            self._give_up_on_segment()
            raise BrokerError(f"{topic}: the spool cannot be written: the disk took {written} of {len(frame)} bytes")
        # in this order: a reader that sees the sequence number finds the bytes
        segment.size += len(frame)
        segment.dirty = True
        self._written += len(frame)
        self.next += 1
        return self.next - 1

    def read(self, start: int) -> Iterator[Entry]:
        """Every whole record from the sequence number ``start`` on, in order, until there is none left.

        A gap in the numbers is what was damaged. Records that are appended meanwhile are read, too.
        """
        segment, offset = self._holding(start), 0
        while segment is not None:
            # asked before the size: a segment that has a successor grows no more
            successor = self._behind(segment)
            size = segment.size
            if offset < size:
                with segment.path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(size - offset)
                offset = size
                for entry, _ in decode(data):
                    if entry.sequence >= start:
                        yield entry
            elif successor is None:
                return
            else:
                segment, offset = successor, 0

    def confirm(self, before: int) -> None:
        """Note that everything before this sequence number is delivered, and delete what nobody needs."""
        if before == self.confirmed:
            return
        # deleting comes first: on a full disk it makes the room that the position may need
        while len(self._segments) > 1 and self._segments[1].first <= before:
            self._delete(self._segments[0])
        os.pwrite(self._position, _POSITION.pack(before, zlib.crc32(before.to_bytes(8, "little"))), 0)
        self.confirmed = before

    def sync(self) -> None:
        """Have the disk itself keep everything appended so far: a power loss takes only what came later."""
        for segment in list(self._segments):
            if segment.file is None:
                continue
            complete = segment is not self._active  # asked first: nothing is written to it from here on
            if segment.dirty:
                segment.dirty = False
                os.fsync(segment.file)
            if complete:
                segment.close()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def close(self) -> None:
        """Sync, delete everything if all of it is confirmed, and let go of the folder."""
        if self._lock < 0:
            return
        self._active = None
        self.sync()
        if self.confirmed >= self.next:
            for segment in list(self._segments):
                self._delete(segment)
        os.close(self._position)
        os.close(self._lock)
        self._lock = -1

    def _recover(self) -> None:
        packed = os.pread(self._position, _POSITION.size, 0)
        self._segments = [
            Segment(path, path.stat().st_size)
            for path in sorted(self.folder.iterdir())
            if _SEGMENT.fullmatch(path.name)
        ]
        position = self._segments[0].first if self._segments else 0
        if len(packed) == _POSITION.size:
            known, checksum = _POSITION.unpack(packed)
            if zlib.crc32(known.to_bytes(8, "little")) == checksum:
                position = max(position, known)
        # A number is never used twice: a disk that lost its last records may know a later position.
        self.next = max(position, self._cut_tail())
        self.confirmed = position
        self._written = sum(segment.size for segment in self._segments)
        for segment in list(self._segments):
            successor = self._behind(segment)
            if (successor.first if successor else self.next) <= position:
                self._delete(segment)

    def _cut_tail(self) -> int:
        """Cut what follows the last whole record; returns the number behind that record.

        Only the last segment can end in a record that was being written; damage anywhere else
        shows as a gap when it is read.
        """
        if not self._segments:
            return 0
        segment = self._segments[-1]
        behind, end = segment.first, 0
        for entry, end in decode(segment.path.read_bytes()):  # noqa: B007 - the last one counts
            behind = entry.sequence + 1
        if end < segment.size:
            log.warning("%s: cut %d bytes behind the last whole record", segment.path, segment.size - end)
            os.truncate(segment.path, end)
            segment.size = end
        return behind

    def _give_up_on_segment(self) -> None:
        """The disk takes no more: begin a new segment, since one without a successor is never deleted."""
        if self._active is not None and self._active.size:
            self._active = None

    def _begin(self) -> Segment:
        path = self.folder / f"{self.next:020d}.log"
        # an existing file of this name holds no whole record: it would have taken the number
        segment = Segment(path, 0, os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
        if self._segments and self._segments[-1].first == segment.first:
            self._segments[-1] = segment
        else:
            self._segments.append(segment)
        return segment

    def _delete(self, segment: Segment) -> None:
        self._segments.remove(segment)
        segment.close()
        segment.path.unlink()
        self._deleted += segment.size

    def _holding(self, sequence: int) -> Segment | None:
        segments = list(self._segments)
        return next((each for each in reversed(segments) if each.first <= sequence), segments[0] if segments else None)

    def _behind(self, segment: Segment) -> Segment | None:
        return next((each for each in list(self._segments) if each.first > segment.first), None)
