"""The key file: whole or not at all, closed when it is bad, and followed by whoever reads it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.keys import KeyFile, Keyring, digest
from ratchet.schemas.errors import KeysError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    """A key file that does not exist yet, in a folder that does not either."""
    return KeyFile(tmp_path / "home" / "keys.json")


def test_a_secret_is_shown_once_and_its_hash_is_kept(file: KeyFile) -> None:
    """What is written has the digest and not the secret, which is 256 random bits after `rk_`."""
    key, secret = file.create("app", "acme", ["infer", "feedback", "infer"], NOW, 60)
    assert secret.startswith("rk_")
    assert len(secret) == 3 + 43
    assert key.sha256 == digest(secret)
    assert secret[3:] not in file.path.read_text()
    (read,) = file.read()
    assert read == key
    assert (read.scopes, read.tenant, read.requests_per_minute) == (["infer", "feedback"], "acme", 60)


def test_only_the_owner_reads_it(file: KeyFile) -> None:
    """The file is 0600 whatever the umask; access that an operator widened stays as it is."""
    before = os.umask(0)
    try:
        file.create("a", "t", ["infer"], NOW)
    finally:
        os.umask(before)
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.path.chmod(0o640)
    file.create("b", "t", ["infer"], NOW)
    assert file.path.stat().st_mode & 0o777 == 0o640


def test_no_file_means_no_key_was_ever_created(file: KeyFile) -> None:
    """Without a file there are no keys, and that is no error."""
    assert file.read() == []
    assert Keyring(file).keys is None


def test_revoking_the_last_key_leaves_it_in_the_file(file: KeyFile) -> None:
    """A revoked key stays, so the gateway does not open again; revoking twice keeps the first time."""
    key, _ = file.create("a", "t", ["infer"], NOW)
    assert file.revoke(key.id, NOW).revoked_at == NOW
    assert file.revoke(key.id, datetime(2027, 1, 1, tzinfo=UTC)).revoked_at == NOW
    assert Keyring(file).keys == {key.sha256: file.read()[0]}


def test_an_unknown_id_is_named_and_a_secret_is_not(file: KeyFile) -> None:
    """Revoking what is not there says so, without repeating a secret that was given by mistake."""
    _, secret = file.create("a", "t", ["infer"], NOW)
    with pytest.raises(KeysError, match="the id 'nope'"):
        file.revoke("nope", NOW)
    with pytest.raises(KeysError) as caught:
        file.revoke(secret, NOW)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("field", ["name", "tenant", "scopes", "requests_per_minute"])
def test_a_bad_field_is_named_and_nothing_is_written(file: KeyFile, field: str) -> None:
    """What a key cannot have is refused by name, and the file stays away."""
    fields: dict[str, Any] = {"name": "a", "tenant": "t", "scopes": ["infer"], "now": NOW}
    bad = {"name": "", "tenant": "a\nb", "scopes": [], "requests_per_minute": 0}
    with pytest.raises(KeysError, match=field):
        file.create(**(fields | {field: bad[field]}))
    assert not file.path.exists()


GOOD = {"id": "00000000", "name": "a", "tenant": "t", "scopes": ["infer"], "sha256": "0" * 64}
GOOD |= {"created_at": "2026-11-24T12:00:00Z"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"keys": []}',
        json.dumps({"keys": [GOOD | {"scopes": ["all"]}]}),
        json.dumps({"keys": [GOOD | {"secret": "rk_x"}]}),
        json.dumps({"keys": [GOOD, GOOD]}),
    ],
)
def test_a_file_that_is_no_key_file_is_an_error_and_never_open(file: KeyFile, text: str) -> None:
    """A file that cannot be understood closes: reading, starting and changing all refuse, and it stays as it is."""
    file.path.parent.mkdir()
    file.path.write_text(text)
    for use in (file.read, lambda: Keyring(file), lambda: file.create("a", "t", ["infer"], NOW)):
        with pytest.raises(KeysError, match=r"keys\.json: not a key file"):
            use()
    assert file.path.read_text() == text


def test_a_file_that_cannot_be_read_is_an_error(file: KeyFile) -> None:
    """A folder in its place, or a link that leads nowhere (a mount that failed), is not the same as no file."""
    file.path.mkdir(parents=True)
    with pytest.raises(KeysError, match="cannot be read"):
        Keyring(file)
    file.path.rmdir()
    file.path.symlink_to("nowhere")
    with pytest.raises(KeysError, match="a link to a file that is not there"):
        Keyring(file)


def test_a_writer_that_fails_leaves_the_old_file(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full the error is one sentence and the old keys are all there."""
    file.create("a", "t", ["infer"], NOW)
    before = file.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeysError, match="cannot be written: No space left on device"):
        file.create("b", "t", ["infer"], NOW)
    assert file.path.read_bytes() == before
    assert [path.name for path in file.path.parent.iterdir() if "new" in path.name] == []


def test_the_file_behind_a_link_is_changed(file: KeyFile, tmp_path: Path) -> None:
    """Where the file is a link to a shared one, every reader of that sees a key and its revocation."""
    shared = KeyFile(tmp_path / "shared.json")
    shared.create("a", "t", ["infer"], NOW)
    file.path.parent.mkdir()
    file.path.symlink_to(shared.path)
    key, _ = file.create("b", "t", ["infer"], NOW)
    file.revoke(key.id, NOW)
    assert file.path.is_symlink()
    assert [one.revoked_at for one in shared.read()] == [None, NOW]


def test_keys_made_at_once_are_all_kept(file: KeyFile) -> None:
    """Processes that create keys at the same time lose none of them."""
    code = (
        "import sys; from datetime import UTC, datetime; from pathlib import Path\n"
        "from ratchet.infra.keys import KeyFile\n"
        "for n in range(10):\n"
        "    KeyFile(Path(sys.argv[1])).create(f'{sys.argv[2]}-{n}', 't', ['infer'], datetime.now(UTC))\n"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code, str(file.path), str(i)]) for i in range(3)]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0]
    assert {key.name for key in file.read()} == {f"{i}-{n}" for i in range(3) for n in range(10)}


def test_a_reader_follows_the_file(file: KeyFile) -> None:
    """Keys that are made, revoked and edited in place are seen at the next look."""
    ring = Keyring(file)
    key, secret = file.create("a", "t", ["infer"], NOW)
    ring.refresh()
    assert ring.keys == {digest(secret): key}
    file.revoke(key.id, NOW)
    ring.refresh()
    assert ring.keys is not None
    assert ring.keys[digest(secret)].revoked_at == NOW
    file.path.write_text(file.path.read_text().replace('"tenant": "t"', '"tenant": "other"'))
    ring.refresh()
    assert ring.keys[digest(secret)].tenant == "other"


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_reader_never_opens(file: KeyFile, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is gone or torn leaves the last good keys in force, is told once, and is read once it is back."""
    file.create("a", "t", ["infer"], NOW)
    ring = Keyring(file)
    good, kept = ring.keys, file.path.read_bytes()
    if damage == "gone":
        file.path.unlink()
    else:
        file.path.write_bytes(kept[:50])
    with caplog.at_level(logging.INFO):
        ring.refresh()
        ring.refresh()
    assert ring.keys == good
    assert ring.problem is not None
    assert len(caplog.records) == 1
    file.path.write_bytes(kept)
    ring.refresh()
    assert ring.problem is None


def test_an_open_reader_closes_when_a_bad_file_appears(file: KeyFile) -> None:
    """Someone meant to make keys: until the file can be read nobody is let in, not even once it is gone again."""
    ring = Keyring(file)
    file.path.parent.mkdir()
    file.path.write_text("{")
    ring.refresh()
    assert ring.keys == {}
    file.path.unlink()
    ring.refresh()
    assert ring.keys == {}
