"""One contract for every artifact store: a folder, memory, and S3's protocol over HTTP."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from s3_server import BUCKET, s3_server

from ratchet.infra.artifacts import MANIFEST, UPLOADING, ArtifactStore
from ratchet.schemas.errors import ArtifactError

NAME = "support@v1-01234567"
CONTENT = {"adapter_config.json": b"{}", "adapter_model.safetensors": bytes(range(256)) * 64}
FILES = {name: hashlib.sha256(raw).hexdigest() for name, raw in CONTENT.items()}
WRITING = ("put_file", "pipe_file", "mv", "rm", "rm_file", "copy", "cp_file")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real HTTP server that speaks S3."""
    with s3_server(tmp_path_factory.mktemp("s3")):
        yield


@pytest.fixture(params=["file", "memory", pytest.param("s3", marks=pytest.mark.connected)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    """An empty store of each kind."""
    match request.param:
        case "file":
            return ArtifactStore(str(tmp_path / "store"))
        case "memory":
            return ArtifactStore(f"memory://{uuid.uuid4().hex}")
    request.getfixturevalue("s3")
    return ArtifactStore(f"s3://{BUCKET}/{uuid.uuid4().hex}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What is published."""
    made = tmp_path / "made"
    made.mkdir()
    for name, raw in CONTENT.items():
        (made / name).write_bytes(raw)
    return made


class Failing:
    """A file system that is gone from its ``n``-th change on, as after a kill."""

    def __init__(self, inner: Any, n: int) -> None:
        self.inner, self.left = inner, n

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in WRITING:
            return found

        def change(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                raise ConnectionError("gone")
            self.left -= 1
            return found(*arguments, **named)

        return change


def fetched(store: ArtifactStore, into: Path) -> dict[str, bytes]:
    """A published folder's files, copied here."""
    into.mkdir()
    store.fetch(NAME, FILES, into)
    return {path.name: path.read_bytes() for path in into.iterdir()}


def test_what_is_published_comes_back_and_its_name_is_given_once(
    store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    """Files and manifest come back byte for byte; again is a no-op, another manifest under the name is refused."""
    assert (store.names(), store.manifest(NAME)) == ([], None)
    assert store.publish(NAME, folder, FILES, b"manifest")
    assert (store.names(), store.manifest(NAME)) == ([NAME], b"manifest")
    assert fetched(store, tmp_path / "here") == CONTENT
    assert not store.publish(NAME, folder, FILES, b"manifest")
    with pytest.raises(ArtifactError, match=f"{NAME} is published with another manifest; names are never reused"):
        store.publish(NAME, folder, FILES, b"other")
    assert store.manifest(NAME) == b"manifest"
    assert store.unfinished(datetime.now(UTC) + timedelta(days=1)) == []


def test_a_push_that_was_killed_anywhere_publishes_nothing(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    """After each step of an upload nobody sees the folder; the next push publishes it whole; what is left is found."""
    files, root = store._at
    for steps in range(100):
        store.__dict__["_at"] = (Failing(files, steps), root)
        whole = False
        with suppress(ArtifactError):
            whole = store.publish(NAME, folder, FILES, b"manifest")
        store.__dict__["_at"] = (files, root)
        if whole or store.manifest(NAME) is not None:
            break
        assert store.names() == []
    assert steps == 6, "two files and the manifest uploaded, three moved"
    assert fetched(store, tmp_path / "here") == CONTENT
    left = store.unfinished(datetime.now(UTC) + timedelta(days=1))
    assert len(left) >= 5
    young = store.unfinished(datetime.now(UTC) - timedelta(days=1))
    assert [path for one in young for path in files.find(f"{root}/{UPLOADING}/{one}")] == [], "they may be under way"
    for one in left:
        store.discard(one)
    assert store.unfinished(datetime.now(UTC) + timedelta(days=1)) == []
    assert fetched(store, tmp_path / "still") == CONTENT


def test_another_file_than_was_published_is_not_used(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    """A file that was changed or lost in the store is named with both hashes; one changed here is not published."""
    store.publish(NAME, folder, FILES, b"manifest")
    files, root = store._at
    files.pipe_file(f"{root}/{NAME}/adapter_config.json", b"[]")
    wanted, found = FILES["adapter_config.json"], hashlib.sha256(b"[]").hexdigest()
    with pytest.raises(ArtifactError, match=f"expected sha256 {wanted}, found {found}: not used"):
        fetched(store, tmp_path / "changed")
    files.rm_file(f"{root}/{NAME}/adapter_config.json")
    with pytest.raises(ArtifactError, match=r"adapter_config\.json cannot be fetched"):
        fetched(store, tmp_path / "lost")
    (folder / "adapter_config.json").write_bytes(b"[]")
    with pytest.raises(ArtifactError, match=r"expected sha256 .*: not published"):
        store.publish("support@v2-01234567", folder, FILES, b"manifest")
    assert store.names() == [NAME]


def test_a_retired_folder_leaves_its_manifest(store: ArtifactStore, folder: Path) -> None:
    """The files go, the word why stays, and the name is not given to the same files again."""
    store.publish(NAME, folder, FILES, b"manifest")
    for _ in range(2):
        store.retire(NAME, b"retired")
    assert (store.names(), store.manifest(NAME)) == ([NAME], b"retired")
    files, root = store._at
    assert [path.rpartition("/")[2] for path in files.ls(f"{root}/{NAME}", detail=False)] == [MANIFEST]
    assert not files.exists(f"{root}/{UPLOADING}") or files.find(f"{root}/{UPLOADING}") == []
    with pytest.raises(ArtifactError, match="names are never reused"):
        store.publish(NAME, folder, FILES, b"manifest")


@pytest.mark.connected
def test_a_server_that_dies_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    """Killed between two files of an upload, it is told; a server that is gone is no empty store."""
    with s3_server(tmp_path) as server:
        store = ArtifactStore(f"s3://{BUCKET}/there")
        assert store.publish(NAME, folder, FILES, b"manifest")
        files, root = store._at
        files.retries = 1  # the test waits for no back-off

        class Dying(Failing):
            def __getattr__(self, name: str) -> Any:
                if name == "put_file" and self.left == 0:
                    server.stop()
                self.left -= name == "put_file"
                return getattr(self.inner, name)

        store.__dict__["_at"] = (Dying(files, 1), root)
        with pytest.raises(ArtifactError, match=f"s3://{BUCKET}/there: support@v2-01234567 cannot be published"):
            store.publish("support@v2-01234567", folder, FILES, b"manifest")
        with pytest.raises(ArtifactError, match=f"s3://{BUCKET}/there: cannot be listed"):
            store.names()
    with pytest.raises(ArtifactError, match="nowhere://bucket: cannot be used"):
        ArtifactStore("nowhere://bucket").names()
