"""The scoring process ends with whoever started it, and says why it has no result."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.trainers.evaluation.scoring import MODULE, ScoringJob, Weights, score


def test_it_ends_when_nobody_waits_any_more(tmp_path: Path) -> None:
    """With the other end of its standard input gone it stops in the middle of loading, without a result."""
    job = ScoringJob(models={"base": Weights(base=tmp_path)})
    (tmp_path / "job.json").write_text(job.model_dump_json())
    ended = subprocess.run([sys.executable, "-m", MODULE, str(tmp_path)], stdin=subprocess.DEVNULL, check=False)
    assert ended.returncode == 1
    assert not (tmp_path / "found.json").exists()


async def test_its_last_words_are_told(tmp_path: Path) -> None:
    """Pairs that cannot be read are named by the error of whoever waited."""
    job = ScoringJob(models={"base": Weights(base=tmp_path)}, holdout=tmp_path / "nowhere.jsonl")
    with pytest.raises(TrainingError, match=r"scoring ended with status 3: .*nowhere\.jsonl"):
        await score(job)
