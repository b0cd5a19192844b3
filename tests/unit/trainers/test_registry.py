"""The registry: names once, files whole, manifests unchanged."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.clock import new_id
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.events import Adapter
from ratchet.trainers import registry

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def _made(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / registry.WEIGHTS).write_bytes(weights)
    (folder / registry.CONFIG).write_text("{}")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    return folder


def _register(placed: registry.Placed, job_id: str, **changes: Any) -> Adapter:
    values: dict[str, Any] = {
        "task": "support",
        "job_id": job_id,
        "at": NOW,
        "method": "dpo",
        "base_model": "tiny",
        "dataset": "abc123",
        "dataset_sha256": "0" * 64,
        "parents": [],
        "params": {"beta": 0.1},
        "metrics": {"loss_last": 0.5},
        "evaluation": {},
    }
    return registry.register(placed, **(values | changes))


def test_name_says_number_and_weights(tmp_path: Path) -> None:
    """An adapter is named after the task's next number and its weights' hash."""
    placed = registry.place(
        tmp_path, "support", new_id(), _made(tmp_path / "out"), ["support@v6-00000000", "x@v9-00000000"]
    )
    assert placed.name == f"support@v7-{placed.weights_sha256[:8]}"
    assert placed.weights_sha256 == registry.file_sha256(placed.folder / registry.WEIGHTS)


def test_only_weights_and_configuration_are_kept(tmp_path: Path) -> None:
    """Pickles and whatever else lies in the trainer's folder stay out."""
    placed = registry.place(tmp_path, "support", new_id(), _made(tmp_path / "out"), [])
    assert {path.name for path in placed.folder.iterdir()} == {registry.WEIGHTS, registry.CONFIG, registry.ORIGIN}


def test_weights_that_are_no_safetensors_are_refused(tmp_path: Path) -> None:
    """A folder with only a pickle is named, and nothing appears in the registry."""
    folder = _made(tmp_path / "out")
    (folder / registry.WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(TrainingError, match="safetensors"):
        registry.place(tmp_path, "support", new_id(), folder, [])
    assert [path.name for path in (tmp_path / "adapters").iterdir()] == [".lock"]


def test_repeated_job_gets_its_name_again(tmp_path: Path) -> None:
    """A job redelivered after a crash makes no second adapter; another job with the same weights does."""
    job_id, made = new_id(), _made(tmp_path / "out")
    first = registry.place(tmp_path, "support", job_id, made, [])
    assert registry.place(tmp_path, "support", job_id, made, [first.name]) == first
    assert registry.place(tmp_path, "support", new_id(), made, []).name.startswith("support@v2-")


def test_adapter_that_came_another_way_keeps_its_number(tmp_path: Path) -> None:
    """A folder without an origin, copied in by hand, blocks nothing and its number is not given again."""
    (tmp_path / "adapters" / "support@v4-00000000").mkdir(parents=True)
    placed = registry.place(tmp_path, "support", new_id(), _made(tmp_path / "out"), [])
    assert placed.name.startswith("support@v5-")


def test_names_given_at_once_differ(tmp_path: Path) -> None:
    """Numbers are given one at a time, whoever asks at the same moment."""

    def place(number: int) -> str:
        made = _made(tmp_path / f"out{number}", str(number).encode())
        return registry.place(tmp_path, "support", new_id(), made, []).name

    with ThreadPoolExecutor(8) as pool:
        names: Sequence[str] = list(pool.map(place, range(16)))
    assert sorted(int(name.split("@v")[1].split("-")[0]) for name in names) == list(range(1, 17))


def test_manifest_is_the_event_and_never_changes(tmp_path: Path) -> None:
    """Registering again gives the first manifest back, whatever is claimed the second time."""
    job_id = new_id()
    placed = registry.place(tmp_path, "support", job_id, _made(tmp_path / "out"), [])
    adapter = _register(placed, job_id)
    assert adapter.label == "tiny-abc123-20261122"
    assert adapter.status == "registered"
    assert Path(adapter.path) == placed.folder
    assert _register(placed, job_id, dataset="other", rejected="too bad") == adapter
    assert registry.read(placed.folder) == adapter


def test_rejected_adapter_says_why(tmp_path: Path) -> None:
    """An adapter below the floor is kept with its reason, and not registered."""
    job_id = new_id()
    placed = registry.place(tmp_path, "support", job_id, _made(tmp_path / "out"), [])
    adapter = _register(placed, job_id, rejected="completion 10% is below 50%")
    assert (adapter.status, adapter.reason) == ("rejected", "completion 10% is below 50%")


def test_unknown_adapter_is_one_sentence(tmp_path: Path) -> None:
    """Reading a manifest that is not there names the file."""
    with pytest.raises(TrainingError, match=r"support@v1-00000000/manifest.json"):
        registry.read(tmp_path / "support@v1-00000000")


def test_a_whole_model_is_kept_with_what_serves_it(tmp_path: Path) -> None:
    """Its weights, configuration and tokenizer are stored and hashed; pickles and code beside them stay out."""
    made = tmp_path / "out"
    made.mkdir()
    for name in ("model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"):
        (made / name).write_text(name)
    for name in ("training_args.bin", "modeling_own.py", "optimizer.pt"):
        (made / name).write_text("code")
    placed = registry.place(tmp_path, "support", new_id(), made, [])
    kept = {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"}
    assert {path.name for path in placed.folder.iterdir()} == kept | {registry.ORIGIN}
    assert placed.files.keys() == kept
    assert placed.weights_sha256 == registry.file_sha256(placed.folder / "model.safetensors")


@pytest.mark.parametrize(("kind", "said"), [("dora", "merge it"), ("prompt", "transformers alone"), ("full", "a pool")])
def test_what_no_server_loads_is_registered_without_a_rollout(tmp_path: Path, kind: str, said: str) -> None:
    """It is kept, with the status that begins no rollout and the reason; a worse reason goes before it."""
    job_id = new_id()
    placed = registry.place(tmp_path, "support", job_id, _made(tmp_path / "out"), [])
    adapter = _register(placed, job_id, params={"adapter_type": kind})
    assert adapter.status == "rejected"
    assert f"adapter_type '{kind}'" in adapter.reason
    assert said in adapter.reason
