"""How one record lies in a spool file: a marker, its length, a checksum, and then its bytes.

Reading needs no index and no luck: it looks for the marker and believes what the checksum
confirms, so it finds its way again behind damage of any kind. The marker begins with a byte
that UTF-8 never has, hence no event (JSON) can look like a frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

MARKER = b"\xf5rs1"
_HEAD = struct.Struct("<4sII")  # marker, bytes of the body, CRC32 of the body (seeded with that length)
_BODY = struct.Struct("<QHi")  # sequence number, bytes of the topic, bytes of the key (-1: none)


class Entry(NamedTuple):
    """One record of a spool."""

    sequence: int
    """Consecutive from 0 on over the whole life of the spool, so that a gap shows what is missing."""
    topic: str
    key: bytes | None
    value: bytes


def encode(sequence: int, topic: str, key: bytes | None, value: bytes) -> bytes:
    """The frame of one record; the arguments are the fields of `Entry`."""
    name = topic.encode()
    if key is None:
        front = _BODY.pack(sequence, len(name), -1) + name
    else:
        front = _BODY.pack(sequence, len(name), len(key)) + name + key
    length = len(front) + len(value)
    checksum = zlib.crc32(value, zlib.crc32(front, length))
    return _HEAD.pack(MARKER, length, checksum) + front + value


def decode(data: bytes) -> Iterator[tuple[Entry, int]]:
    """Every whole record in ``data``, in order, with the offset behind it; what is damaged is passed over."""
    at = 0
    while (at := data.find(MARKER, at)) >= 0:
        found = _entry_at(data, at)
        if found is None:
            at += 1
        else:
            yield found
            at = found[1]


def _entry_at(data: bytes, at: int) -> tuple[Entry, int] | None:
    start = at + _HEAD.size
    if start > len(data):
        return None
    _, length, checksum = _HEAD.unpack_from(data, at)
    end = start + length
    if length < _BODY.size or end > len(data) or zlib.crc32(memoryview(data)[start:end], length) != checksum:
        return None
    sequence, topic_size, key_size = _BODY.unpack_from(data, start)
    topic_at = start + _BODY.size
    key_at = topic_at + topic_size
    value_at = key_at + max(key_size, 0)
    key = None if key_size < 0 else data[key_at:value_at]
    return Entry(sequence, data[topic_at:key_at].decode(), key, data[value_at:end]), end
