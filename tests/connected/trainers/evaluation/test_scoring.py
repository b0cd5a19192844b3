"""Pairs and regression tasks measured on real weights, in a process of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
from scoring_place import adapter, colours, pairs

from ratchet.trainers.evaluation.scoring import ScoringJob, Weights, score

pytestmark = [pytest.mark.connected, pytest.mark.slow]


async def test_pairs_and_tasks_of_base_and_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    """Base and adapter are measured on the same pairs and examples; a task that cannot run is its own error."""
    job = ScoringJob(
        models={
            "base": Weights(base=tiny_llama),
            "candidate": Weights(base=tiny_llama, adapter=adapter(tiny_llama, tmp_path / "adapter")),
        },
        holdout=pairs(tmp_path / "holdout.jsonl"),
        lm_eval={"colours": str(colours(tmp_path)), "away": str(tmp_path / "away.yaml")},
        limit=5,
    )
    found = await score(job)
    base, candidate = found["base"], found["candidate"]
    assert set(base) == {"preference_accuracy", "lm_eval:colours", "lm_eval:away"}
    assert set(candidate) == {*base, "reward_margin"}
    for side in (base, candidate):
        assert len(side["preference_accuracy"].values) == 8
        assert len(side["lm_eval:colours"].values) == 5
        assert {value[0] for value in side["lm_eval:colours"].values.values()} <= {0.0, 1.0}
        assert "away.yaml" in side["lm_eval:away"].error
    margins = [value[0] for value in candidate["reward_margin"].values.values()]
    assert any(abs(one) > 1e-6 for one in margins)
