"""Which checkpoint a run goes on from: files alone, without torch."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training import checkpoints
from ratchet.trainers.training.job import TrainingJob

JOB = "f" * 64


def checkpoint(output: Path, step: int, *, sealed: bool = True) -> Path:
    """A checkpoint of three files."""
    folder = output / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "trainer_state.json"):
        (folder / name).write_text(f"{name} of step {step}")
    if sealed:
        checkpoints.seal(folder, JOB, seconds=10.0 * step)
    return folder


def test_the_newest_by_number_is_gone_on_from(tmp_path: Path) -> None:
    """Step 100 is newer than step 20, and says how long the run had taken."""
    for step in (20, 100, 3):
        checkpoint(tmp_path, step)
    found = checkpoints.newest(tmp_path, JOB, pytest.fail)
    assert found is not None
    assert (found.step, found.seconds) == (100, 1000.0)


def _torn(folder: Path) -> None:
    (folder / "seal.json").unlink()


def _emptied_seal(folder: Path) -> None:
    (folder / "seal.json").write_text("")


def _strange_seal(folder: Path) -> None:
    (folder / "seal.json").write_text("[]")


def _another_job(folder: Path) -> None:
    checkpoints.seal(folder, "0" * 64, 1.0)


def _missing(folder: Path) -> None:
    (folder / "optimizer.pt").unlink()


def _more(folder: Path) -> None:
    (folder / "rng_state.pth").write_text("planted")


def _linked(folder: Path) -> None:
    (folder / "optimizer.pt").rename(folder.parent / "elsewhere")
    (folder / "optimizer.pt").symlink_to(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_torn, "the run ended while it was written"),
        (_emptied_seal, "cannot be read"),
        (_strange_seal, "cannot be read"),
        (_another_job, "another recipe"),
        (_missing, "not those that were sealed"),
        (_more, "not those that were sealed"),
        (_linked, "no plain file"),
    ],
)
def test_a_checkpoint_that_is_not_what_was_sealed_is_passed_over(tmp_path: Path, harm: object, said: str) -> None:
    """One line names its step and the reason, it is deleted, and the one before it is taken."""
    checkpoint(tmp_path, 1)
    assert callable(harm)
    harm(checkpoint(tmp_path, 2))
    lines: list[str] = []
    found = checkpoints.newest(tmp_path, JOB, lines.append)
    assert found is not None
    assert found.step == 1
    assert len(lines) == 1
    assert "step 2 passed over" in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "checkpoint-2").exists()


@given(data=st.data())
def test_any_byte_that_changed_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whichever byte of whichever file is another one, the checkpoint is not gone on from."""
    folder = checkpoint(tmp_path_factory.mktemp("any"), 1)
    file = data.draw(st.sampled_from(sorted(folder.glob("*[!n]"))))  # all but the JSON files
    raw = bytearray(file.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(raw)
    assert file.name in str(checkpoints.flaw(folder, JOB))


def test_where_none_is_good_the_run_begins_again(tmp_path: Path) -> None:
    """Nothing sealed, nothing left behind; a folder or a link of another name is not touched."""
    checkpoint(tmp_path, 5, sealed=False)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-9").symlink_to(tmp_path / "checkpoint-best")
    assert checkpoints.sealed_step(tmp_path) == 0
    assert checkpoints.newest(tmp_path, JOB, lambda _: None) is None
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["checkpoint-9", "checkpoint-best"]
    assert checkpoints.newest(tmp_path / "nowhere", JOB, pytest.fail) is None


def test_the_newest_stay_and_what_they_need(tmp_path: Path) -> None:
    """Older ones are deleted, but for those whose weights were the best when one of the newest was made."""
    best = {4: 1, 5: 3}
    for step in range(1, 6):
        checkpoint(tmp_path, step)
    checkpoints.keep(tmp_path, 2, best.get)
    assert [entry.name[-1] for entry in sorted(tmp_path.iterdir())] == ["1", "3", "4", "5"]
    (tmp_path / "checkpoint-3" / "optimizer.pt").write_text("spoilt")
    lines: list[str] = []
    found = checkpoints.newest(tmp_path, JOB, lines.append, best.get)
    assert found is not None
    assert found.step == 4
    assert "of the best step before it, 3: optimizer.pt" in lines[0]
    checkpoints.keep(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_a_fingerprint_is_of_what_a_run_comes_out_of(tmp_path: Path) -> None:
    """Another row or another setting is another run; how often checkpoints are made is not."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")

    def of(**recipe: object) -> str:
        made = TrainingJob(base_model=tmp_path, dataset=rows, output=tmp_path, recipe=Recipe.model_validate(recipe))
        return checkpoints.fingerprint(made)

    plain = of()
    assert of(checkpoint_s=7) == plain
    assert of(learning_rate=0.5) != plain
    rows.write_text("{ }\n")
    assert of() != plain


def test_a_seal_is_written_after_what_it_seals(tmp_path: Path) -> None:
    """A checkpoint that is made again at the same step has no seal until it is whole."""
    folder = checkpoint(tmp_path, 1)
    first = json.loads((folder / "seal.json").read_text())
    (folder / "optimizer.pt").write_text("another")
    checkpoints.seal(folder, JOB, 1.0)
    second = json.loads((folder / "seal.json").read_text())
    assert {name for name in first["sha256"] if first["sha256"][name] != second["sha256"][name]} == {"optimizer.pt"}
    assert checkpoints.flaw(folder, JOB) is None
