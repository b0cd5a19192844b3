"""The shelf: what another machine pushed is pulled whole, checked, or not at all."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ratchet.infra.artifacts import ArtifactStore
from ratchet.infra.clock import new_id
from ratchet.schemas.errors import AdapterRefused, ArtifactError
from ratchet.schemas.events import Adapter
from ratchet.trainers import registry
from ratchet.trainers.adapters.shelf import Shelf
from ratchet.trainers.registry import CONFIG, MANIFEST, WEIGHTS


def trained(home: Path, rejected: str | None = None) -> Adapter:
    """An adapter that a machine trained and registered."""
    made = home / "made"
    made.mkdir(parents=True)
    (made / WEIGHTS).write_bytes(os.urandom(64))
    (made / CONFIG).write_text("{}")
    job = new_id()
    return registry.register(
        registry.place(home, "support", job, made, []),
        task="support", job_id=job, at=datetime(2026, 11, 25, tzinfo=UTC), method="dpo", base_model="tiny",
        dataset="abc", dataset_sha256="0" * 64, parents=[], params={}, metrics={}, evaluation={}, rejected=rejected,
    )  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store that both machines reach."""
    return ArtifactStore(str(tmp_path / "store"))


def test_what_one_machine_pushed_another_loads(tmp_path: Path, store: ArtifactStore) -> None:
    """The trainer's machine pushes; the controller's, which lacks the folder, pulls it when it loads it, once."""
    adapter = trained(tmp_path / "trainer")
    Shelf(tmp_path / "trainer", store).push_registered(adapter)
    away = adapter.model_copy(update={"path": str(tmp_path / "not-mounted-here")})
    there = Shelf(tmp_path / "controller", store)
    folder = there.folder(away)
    assert folder == (tmp_path / "controller" / "adapters" / adapter.name).resolve()
    assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG, MANIFEST}
    assert registry.read(folder) == away
    assert [path.name for path in folder.parent.iterdir()] == [adapter.name]
    assert Shelf(tmp_path / "controller").folder(away) == folder, "without the store it is here all the same"
    (folder / WEIGHTS).write_bytes(b"other")
    with pytest.raises(AdapterRefused, match="was changed since it was registered"):
        there.folder(away)


def test_a_store_that_lies_is_not_believed(tmp_path: Path, store: ArtifactStore) -> None:
    """Weights that were exchanged in the store, with a manifest that agrees with them, are held to the registry's."""
    adapter = trained(tmp_path / "trainer")
    Shelf(tmp_path / "trainer", store).push(adapter)
    published = Path(store.address) / adapter.name
    (published / WEIGHTS).write_bytes(b"evil")
    forged = adapter.model_copy(update={"files": adapter.files | {WEIGHTS: registry.file_sha256(published / WEIGHTS)}})
    (published / MANIFEST).write_bytes(forged.to_bytes())
    there = Shelf(tmp_path / "controller", store)
    away = adapter.model_copy(update={"path": "/nowhere"})
    with pytest.raises(AdapterRefused, match=rf"/nowhere is not here, and .*expected sha256 {adapter.weights_sha256}"):
        there.folder(away)
    assert list((tmp_path / "controller" / "adapters").iterdir()) == []


def test_what_is_not_to_be_had_is_said(tmp_path: Path, store: ArtifactStore) -> None:
    """Never published, retired, no store, no files: each is one sentence; a rejected adapter is not pushed."""
    adapter = trained(tmp_path / "trainer", rejected="too bad")
    shelf = Shelf(tmp_path / "trainer", store)
    shelf.push_registered(adapter)
    assert store.names() == []
    away = adapter.model_copy(update={"path": "/nowhere"})
    there = Shelf(tmp_path / "controller", store)
    with pytest.raises(AdapterRefused, match="was never published"):
        there.folder(away)
    with pytest.raises(AdapterRefused, match="no artifact store is set"):
        Shelf(tmp_path / "controller").folder(away)
    with pytest.raises(ArtifactError, match="has no files to publish"):
        shelf.push(adapter.model_copy(update={"files": {}}))
    retired = adapter.model_copy(update={"status": "retired", "reason": "old"})
    store.retire(adapter.name, retired.to_bytes())
    with pytest.raises(ArtifactError, match="is retired: old"):
        there.pull(away)


def test_the_same_files_are_published_once_and_never_again(tmp_path: Path, store: ArtifactStore) -> None:
    """A manifest that says more of the same files is no other adapter; one that was retired does not come back."""
    adapter = trained(tmp_path / "trainer")
    shelf = Shelf(tmp_path / "trainer", store)
    assert shelf.push(adapter)
    assert not shelf.push(adapter.model_copy(update={"metrics": {"loss": 0.1}}))
    assert shelf.published(adapter.name) == adapter
    store.retire(adapter.name, adapter.model_copy(update={"status": "retired", "reason": "old"}).to_bytes())
    with pytest.raises(ArtifactError, match="is retired: old"):
        shelf.push(adapter)


def test_a_manifest_that_leads_elsewhere_is_none(tmp_path: Path, store: ArtifactStore) -> None:
    """A file name with a path in it is no adapter.v1, and another adapter's manifest is not this one's."""
    adapter = trained(tmp_path / "trainer")
    shelf = Shelf(tmp_path / "trainer", store)
    shelf.push(adapter)
    manifest = Path(store.address) / adapter.name / MANIFEST
    other = adapter.name[:-1] + ("0" if adapter.name[-1] != "0" else "1")
    manifest.write_bytes(manifest.read_bytes().replace(adapter.name.encode(), other.encode()))
    with pytest.raises(ArtifactError, match=f"its manifest is of {other}"):
        shelf.published(adapter.name)
    manifest.write_bytes(adapter.to_bytes().replace(CONFIG.encode(), b"../../etc/x.json"))
    with pytest.raises(ArtifactError, match=r"files\.\.\./\.\./etc/x\.json"):
        shelf.published(adapter.name)
    assert shelf.published("../made") is None


def test_changed_files_are_not_published(tmp_path: Path, store: ArtifactStore) -> None:
    """What was tampered with before the push does not spread."""
    adapter = trained(tmp_path / "trainer")
    (Path(adapter.path) / CONFIG).write_text("[]")
    with pytest.raises(AdapterRefused, match=f"{CONFIG} was changed"):
        Shelf(tmp_path / "trainer", store).push(adapter)
    assert store.names() == []
