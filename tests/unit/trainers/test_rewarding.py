"""What a recipe names as its reward is found and checked before a training begins."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.events import Adapter
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers import registry
from ratchet.trainers.evaluation.evaluated import of_reward_model
from ratchet.trainers.rewarding import reward_of

POLICY = TaskPolicy.model_validate(
    {"completion": "polite", "checks": [{"name": "polite", "kind": "regex", "pattern": "please"}]}
)


def registered(home: Path, method: Any = "reward", rejected: str | None = None) -> Adapter:
    """An adapter of made-up weights in the registry."""
    made = home / "made"
    made.mkdir(parents=True, exist_ok=True)
    (made / registry.WEIGHTS).write_bytes(b"weights")
    (made / registry.CONFIG).write_text("{}")
    return registry.register(
        registry.place(home, "support", f"job-{method}", made, []),
        task="support",
        job_id="0197a2f0-0000-7000-8000-000000000001",
        at=datetime(2026, 11, 25, tzinfo=UTC),
        method=method,
        base_model="base",
        dataset="d1",
        dataset_sha256=hashlib.sha256(b"d").hexdigest(),
        parents=[],
        params={},
        metrics={},
        evaluation={},
        rejected=rejected,
    )


def reward(home: Path, base_model: str = "base", **named: Any) -> Any:
    """What a recipe with these rewards gets."""
    recipe = Recipe.model_validate({"method": "grpo"} | named)
    return reward_of(home, home, "support", POLICY, recipe, base_model)


def test_a_reward_model_and_a_check_are_found(tmp_path: Path) -> None:
    """The job gets the model's folder and the check itself; other methods get none."""
    adapter = registered(tmp_path)
    found = reward(tmp_path, reward_adapter=adapter.name, reward_check="polite")
    assert found.adapter == Path(adapter.path)
    assert found.check.name == "polite"
    assert reward_of(tmp_path, tmp_path, "support", POLICY, Recipe(), "base") is None


def test_what_cannot_reward_is_refused_by_name(tmp_path: Path) -> None:
    """An unknown check or adapter, one that answers, one that was rejected, one of another base model."""
    with pytest.raises(TrainingError, match="reward_check: 'rude'; allowed: 'polite'"):
        reward(tmp_path, reward_check="rude")
    with pytest.raises(TrainingError, match="reward_adapter: 'support@v9-1a2b3c4d'"):
        reward(tmp_path, reward_adapter="support@v9-1a2b3c4d")
    with pytest.raises(TrainingError, match="was trained by method 'dpo'; allowed: one by 'reward'"):
        reward(tmp_path / "a", reward_adapter=registered(tmp_path / "a", "dpo").name)
    with pytest.raises(TrainingError, match="is rejected: may be chance"):
        reward(tmp_path / "b", reward_adapter=registered(tmp_path / "b", rejected="may be chance").name)
    with pytest.raises(TrainingError, match="is of base model 'base'; allowed: of 'larger'"):
        reward(tmp_path / "c", "larger", reward_adapter=registered(tmp_path / "c").name)


def test_a_reward_model_that_was_changed_is_refused(tmp_path: Path) -> None:
    """Its weights are held to the hash that was registered before anything is rewarded by them."""
    adapter = registered(tmp_path)
    (Path(adapter.path) / registry.WEIGHTS).write_bytes(b"other weights")
    with pytest.raises(TrainingError, match="was changed since it was registered"):
        reward(tmp_path, reward_adapter=adapter.name)


@pytest.mark.parametrize(
    ("accuracy", "why"),
    [
        (None, "no held-out pairs"),
        ({"n": 16, "k": 9, "rate": 9 / 16, "low": 0.33, "high": 0.77}, "9 of 16 held-out pairs, which may be chance"),
        ({"n": 16, "k": 15, "rate": 15 / 16, "low": 0.72, "high": 0.99}, None),
    ],
)
def test_a_reward_model_must_be_better_than_chance(accuracy: Any, why: str | None) -> None:
    """What was not measured, or is not above one in two with 95% confidence, is rejected with the figures."""
    rejected = of_reward_model(accuracy).rejected
    assert rejected is None if why is None else rejected is not None and why in rejected
