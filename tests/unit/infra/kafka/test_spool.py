"""The spool: what was appended is read in order, over cuts, flips, full disks and restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.infra.kafka.frames import Entry, decode, encode
from ratchet.infra.kafka.spool import Spool
from ratchet.schemas.errors import BrokerError, StartError

MIB = 2**20
Fields = tuple[str, bytes | None, bytes]
record = st.tuples(st.sampled_from(["ratchet.feedback", "töpic"]), st.none() | st.binary(max_size=9), st.binary())
records = st.lists(record, min_size=1, max_size=12)


def fill(spool: Spool, count: int, size: int = 100) -> list[bytes]:
    """Append records and return their values."""
    values = [f"{number:06d}".encode().ljust(size, b".") for number in range(spool.next, spool.next + count)]
    for value in values:
        spool.append("t", b"k", value)
    return values


def values(spool: Spool, start: int = 0) -> list[bytes]:
    """The values of everything that can be read."""
    return [entry.value for entry in spool.read(start)]


def segments(folder: Path) -> list[Path]:
    """The segment files in order."""
    return sorted(folder.glob("*.log"))


def abandon(spool: Spool) -> None:
    """What a kill leaves behind: files as they are, and no lock."""
    for each in spool._segments:
        each.close()
    os.close(spool._lock)
    os.close(spool._position)


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    """Topic, key (none, empty or bytes) and value are read in the order in which they were appended."""
    spool = Spool(tmp_path, MIB)
    given_ = [("a", None, b""), ("b", b"", b"\x00\xff"), ("ü", b"key", b"value")]
    assert [spool.append(*each) for each in given_] == [0, 1, 2]
    assert [entry[1:] for entry in spool.read(0)] == given_
    assert [entry.sequence for entry in spool.read(2)] == [2]
    spool.close()


@settings(max_examples=60)
@given(records, st.data())
def test_any_cut_leaves_the_whole_records_before_it(fields: list[Fields], data: st.DataObject) -> None:
    """A file cut at any byte recovers exactly the whole records before the cut, and takes new ones behind them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spool = Spool(folder, MIB)
        ends = []
        for each in fields:
            spool.append(*each)
            ends.append(spool.size)
        abandon(spool)
        cut = data.draw(st.integers(0, ends[-1]))
        os.truncate(segments(folder)[0], cut)
        whole = sum(end <= cut for end in ends)
        again = Spool(folder, MIB)
        assert again.next == whole
        again.append("new", None, b"behind the cut")
        assert [entry[1:] for entry in again.read(0)] == [*fields[:whole], ("new", None, b"behind the cut")]
        assert [entry.sequence for entry in again.read(0)] == list(range(whole + 1))
        again.close()


@settings(max_examples=150)
@given(records, st.data())
def test_flipped_bytes_never_make_a_wrong_record(fields: list[Fields], data: st.DataObject) -> None:
    """With one byte changed, the one record it lies in is missing and all others are read as they were."""
    entries = [Entry(number, *each) for number, each in enumerate(fields)]
    frames = [encode(*entry) for entry in entries]
    raw = bytearray(b"".join(frames))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    hit = next(number for number in range(len(frames)) if place < sum(map(len, frames[: number + 1])))
    assert [entry for entry, _ in decode(bytes(raw))] == entries[:hit] + entries[hit + 1 :]


@settings(max_examples=60)
@given(st.binary(max_size=400), records, st.binary(max_size=400))
def test_rubbish_around_records_is_passed_over(before: bytes, fields: list[Fields], after: bytes) -> None:
    """Whatever bytes lie around a series of records, the series is read and nothing else."""
    entries = [Entry(number, *each) for number, each in enumerate(fields)]
    raw = before + b"".join(encode(*entry) for entry in entries) + after
    assert [entry for entry, _ in decode(raw)] == entries


def test_damage_in_the_middle_shows_as_a_gap(tmp_path: Path) -> None:
    """A record that was damaged on disk leaves a gap in the numbers, and those behind it are read."""
    spool = Spool(tmp_path, MIB)
    fill(spool, 10)
    with segments(tmp_path)[0].open("r+b") as file:
        file.seek(spool.size * 4 // 10 + 50)
        file.write(b"\x00\x00")
    assert [entry.sequence for entry in spool.read(0)] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    spool.close()


def test_a_segment_goes_when_all_of_it_is_confirmed(tmp_path: Path) -> None:
    """Segments are deleted one by one as their last record is confirmed, and the size goes down with them."""
    spool = Spool(tmp_path, MIB, segment_bytes=1000)
    written = fill(spool, 100)
    assert len(segments(tmp_path)) > 5
    second = int(segments(tmp_path)[1].stem)
    spool.confirm(second - 1)
    assert int(segments(tmp_path)[0].stem) == 0
    spool.confirm(second)
    assert int(segments(tmp_path)[0].stem) == second
    assert spool.size == sum(path.stat().st_size for path in segments(tmp_path))
    assert values(spool, second) == written[second:]
    spool.confirm(100)
    assert len(segments(tmp_path)) == 1
    spool.close()
    assert segments(tmp_path) == []


def test_the_limit_is_kept_and_room_comes_back(tmp_path: Path) -> None:
    """What would pass the limit is refused and leaves no trace; confirmed records make room again."""
    spool = Spool(tmp_path, 5000, segment_bytes=1000)
    with pytest.raises(BrokerError, match="spool is full"):
        fill(spool, 1000)
    taken = spool.next
    assert spool.size <= 5000
    assert len(values(spool)) == taken
    spool.confirm(taken)
    fill(spool, 5)
    assert len(values(spool, taken)) == 5
    spool.close()


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    """Opened again, the spool knows what was confirmed, reads what was not, and never uses a number twice."""
    spool = Spool(tmp_path, MIB, segment_bytes=1000)
    written = fill(spool, 50)
    spool.confirm(20)
    abandon(spool)
    again = Spool(tmp_path, MIB, segment_bytes=1000)
    assert (again.confirmed, again.next) == (20, 50)
    assert values(again, again.confirmed) == written[20:]
    again.confirm(50)
    again.close()
    third = Spool(tmp_path, MIB)
    assert (third.confirmed, third.next, third.size) == (50, 50, 0)
    third.close()


def test_a_lost_position_sends_more_and_never_less(tmp_path: Path) -> None:
    """Without a readable position everything that is there counts as unconfirmed."""
    spool = Spool(tmp_path, MIB)
    fill(spool, 9)
    spool.confirm(5)
    abandon(spool)
    (tmp_path / "position").write_bytes(b"\x01" * 12)
    again = Spool(tmp_path, MIB)
    assert (again.confirmed, again.next) == (0, 9)
    again.close()


def test_a_disk_that_lost_its_tail_gives_no_number_twice(tmp_path: Path) -> None:
    """After a power loss took confirmed records, new ones are numbered behind them and do not count as sent."""
    spool = Spool(tmp_path, MIB)
    fill(spool, 9)
    spool.confirm(8)
    abandon(spool)
    os.truncate(segments(tmp_path)[0], 0)
    again = Spool(tmp_path, MIB)
    assert again.append("t", None, b"new") == 8
    assert values(again, again.confirmed) == [b"new"]
    again.close()


def test_reading_follows_what_is_appended_meanwhile(tmp_path: Path) -> None:
    """A reader that has begun also meets later records, across segments, and ends when there are no more."""
    spool = Spool(tmp_path, MIB, segment_bytes=500)
    written = fill(spool, 3)
    reader = spool.read(0)
    first = next(reader).value
    written += fill(spool, 20)
    assert [first, *(entry.value for entry in reader)] == written
    spool.close()


def test_a_folder_belongs_to_one_process(tmp_path: Path) -> None:
    """A second owner is refused in one sentence, and may come once the first has gone."""
    spool = Spool(tmp_path, MIB)
    with pytest.raises(StartError, match="in use by another process"):
        Spool(tmp_path, MIB)
    spool.close()
    spool.close()
    Spool(tmp_path, MIB).close()


def test_a_folder_that_cannot_be_used_is_a_start_error(tmp_path: Path) -> None:
    """A folder that cannot be made ends the start with a sentence that names it."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StartError, match=r"spool: cannot use .*file/gateway: Not a directory"):
        Spool(tmp_path / "file" / "gateway", MIB)


def test_a_full_disk_refuses_and_keeps_what_was_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the disk takes half of is refused, and the next one that fits is read behind the others."""
    spool = Spool(tmp_path, MIB)
    written = fill(spool, 3)
    whole = os.pwrite
    room = [40]

    def pwrite(file: int, data: bytes, offset: int) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        done = whole(file, data[: room[0]], offset)
        room[0] -= done
        return done

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(BrokerError, match="No space left"):
        spool.append("t", b"k", b"x" * 500)
    room[0] = 10_000
    spool.append("t", b"k", b"fits")
    assert values(spool) == [*written, b"fits"]
    abandon(spool)
    again = Spool(tmp_path, MIB)
    assert values(again) == [*written, b"fits"]
    again.close()


def test_a_full_disk_is_freed_by_what_is_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not even the position can be written, confirmed segments go all the same, and the start is after them."""
    spool = Spool(tmp_path, MIB, segment_bytes=1000)
    written = fill(spool, 30)
    second = int(segments(tmp_path)[1].stem)

    def pwrite(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError, match="No space left"):
            spool.confirm(second)
    assert int(segments(tmp_path)[0].stem) == second
    abandon(spool)
    again = Spool(tmp_path, MIB)
    assert again.confirmed == second
    assert values(again, second) == written[second:]
    again.close()


def test_a_disk_smaller_than_a_segment_is_freed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that the disk refused to let grow gets a successor, so it goes once all of it is confirmed."""
    spool = Spool(tmp_path, MIB)
    fill(spool, 5)

    def pwrite(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(os, "pwrite", pwrite)
        for _ in range(3):
            with pytest.raises(BrokerError, match="No space left"):
                spool.append("t", b"k", b"x")
    fill(spool, 1)
    assert len(segments(tmp_path)) == 2
    spool.confirm(5)
    assert [int(segment.stem) for segment in segments(tmp_path)] == [5]
    spool.close()


def test_sync_keeps_every_segment_and_closes_the_complete_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file that changed is synced once; files of complete segments are not kept open."""
    spool = Spool(tmp_path, MIB, segment_bytes=500)
    fill(spool, 20)
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    spool.sync()
    assert len(synced) == len(segments(tmp_path)) + 1  # and the folder
    assert sum(each.file is not None for each in spool._segments) == 1
    spool.sync()
    assert len(synced) == len(segments(tmp_path)) + 2
    spool.close()


KILLED = """
import os, sys
from pathlib import Path
from ratchet.infra.kafka.spool import Spool
spool = Spool(Path(sys.argv[1]), 2**26, segment_bytes=20_000)
while True:
    sequence = spool.append("t", None, b"%d" % spool.next + b"." * 1000)
    os.write(1, b"%d\\n" % sequence)
    if sequence % 100 == 99:
        spool.confirm(sequence - 50)
"""


def test_a_kill_loses_nothing_that_was_taken(tmp_path: Path) -> None:
    """A process that appends is killed at any moment: whatever it said it took and did not confirm is there."""
    said = -1
    for round_ in range(5):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = int(line)
                if said % 1000 == 137 * (round_ + 1):
                    process.send_signal(signal.SIGKILL)
                    break
            said = max([said, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
        spool = Spool(tmp_path, 2**26)
        found = [(entry.sequence, int(entry.value.rstrip(b"."))) for entry in spool.read(spool.confirmed)]
        assert found == [(number, number) for number in range(spool.confirmed, spool.next)]
        assert spool.next > said
        assert said - spool.confirmed < 200
        abandon(spool)
    shutil.rmtree(tmp_path)
