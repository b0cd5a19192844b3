"""Adapters' files are checked before they are loaded: what was changed is named, what was not is not read again."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import new_id
from ratchet.schemas.errors import AdapterRefused
from ratchet.trainers import registry
from ratchet.trainers.adapters.verifying import FileHashes, verify
from ratchet.trainers.registry import CONFIG, MANIFEST, WEIGHTS, Placed, file_sha256


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    """An adapter on the shelf."""
    return place(tmp_path)


def place(home: Path) -> Placed:
    """A trained adapter, placed under its name."""
    made = home / "made"
    made.mkdir()
    (made / WEIGHTS).write_bytes(bytes(range(200)))
    (made / CONFIG).write_text('{"r": 8}')
    return registry.place(home, "support", new_id(), made, [])


def check(placed: Placed, hashes: FileHashes | None = None) -> None:
    """Check it as whoever loads it does."""
    verify(placed.folder, placed.name, placed.weights_sha256, placed.files, hashes or FileHashes())


def test_what_was_placed_passes(placed: Placed) -> None:
    """An untouched adapter passes, with its manifest and with the rest of a manifest whose writer was killed."""
    check(placed)
    (placed.folder / MANIFEST).write_text("{}")
    (placed.folder / f".{MANIFEST}.4711").write_text("{")
    check(placed)


@given(file=st.sampled_from([WEIGHTS, CONFIG]), at=st.integers(0, 7), bit=st.integers(0, 7), cut=st.booleans())
def test_any_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, file: str, at: int, bit: int, cut: bool
) -> None:
    """One flipped bit or a lost end of either file is refused, naming the file and both hashes."""
    placed = place(tmp_path_factory.mktemp("home"))
    path = placed.folder / file
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1 << bit
    path.write_bytes(raw[:at] if cut else raw)
    with pytest.raises(AdapterRefused) as refused:
        check(placed)
    for told in (placed.name, str(path), placed.files[file], file_sha256(path)):
        assert told in str(refused.value)


def test_a_file_changed_behind_a_set_back_clock_is_found(placed: Placed) -> None:
    """Same size, inode and time of modification: the time of change gives it away."""
    hashes = FileHashes()
    check(placed, hashes)
    path = placed.folder / WEIGHTS
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"\xff")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(AdapterRefused, match="was changed since it was registered"):
        check(placed, hashes)


def test_unchanged_files_are_read_once(placed: Placed) -> None:
    """A hundred loads of an adapter hash its two files once."""
    read: list[str] = []

    def reading(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    hashes = FileHashes(reading)
    for _ in range(100):
        check(placed, hashes)
    assert sorted(read) == [CONFIG, WEIGHTS]


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "extra.safetensors", "model.py"])
def test_nothing_else_may_lie_there(placed: Placed, name: str) -> None:
    """A pickle, code or another file beside the weights is refused by name."""
    (placed.folder / name).write_bytes(pickle.dumps({}))
    with pytest.raises(AdapterRefused, match=rf"{name} does not belong there; allowed: "):
        check(placed)


def test_a_link_and_a_folder_are_no_files(placed: Placed, tmp_path: Path) -> None:
    """Weights that are a link could be exchanged elsewhere, whatever they are now; a folder is no manifest."""
    moved = tmp_path / "elsewhere"
    (placed.folder / WEIGHTS).rename(moved)
    (placed.folder / WEIGHTS).symlink_to(moved)
    with pytest.raises(AdapterRefused, match="does not belong there"):
        check(placed)
    (placed.folder / WEIGHTS).unlink()
    moved.rename(placed.folder / WEIGHTS)
    check(placed)
    (placed.folder / MANIFEST).mkdir()
    with pytest.raises(AdapterRefused, match=f"{MANIFEST} does not belong there"):
        check(placed)


def test_a_name_belongs_to_its_weights(placed: Placed) -> None:
    """Weights under another adapter's name, a manifest that contradicts itself and an empty place are refused."""
    with pytest.raises(AdapterRefused, match="weights of another hash"):
        verify(placed.folder, "support@v1-00000000", placed.weights_sha256, placed.files, FileHashes())
    other = placed.files | {WEIGHTS: "0" * 64}
    with pytest.raises(AdapterRefused, match="contradicts itself"):
        verify(placed.folder, placed.name, placed.weights_sha256, other, FileHashes())
    (placed.folder / CONFIG).unlink()
    with pytest.raises(AdapterRefused, match=f"{CONFIG} is missing"):
        check(placed)
    with pytest.raises(AdapterRefused, match="No such file or directory, so its files cannot be checked"):
        verify(placed.folder / "away", placed.name, placed.weights_sha256, placed.files, FileHashes())


def test_an_older_manifest_knows_its_weights_alone(placed: Placed) -> None:
    """Without hashes of the files the weights are checked, and only the known files may be there."""
    verify(placed.folder, placed.name, placed.weights_sha256, {}, FileHashes())
    (placed.folder / WEIGHTS).write_bytes(b"other")
    with pytest.raises(AdapterRefused, match="expected sha256"):
        verify(placed.folder, placed.name, placed.weights_sha256, {}, FileHashes())
