"""What rewards the answers of grpo and rloo: found and checked before a training begins."""

from __future__ import annotations

from pathlib import Path

from ratchet.schemas.errors import AdapterRefused, TrainingError
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.training_policy import ONLINE, Recipe
from ratchet.trainers import registry
from ratchet.trainers.adapters.verifying import FileHashes, verify
from ratchet.trainers.training.job import RewardSource


def reward_of(
    home: Path, config_dir: Path, task: str, policy: TaskPolicy, recipe: Recipe, base_model: str
) -> RewardSource | None:
    """Find what a recipe names as its reward; None for methods that take none.

    Args:
        home: Ratchet's home.
        config_dir: the folder of ``ratchet.toml``.
        task: whose checks may be named.
        policy: its policy.
        recipe: the method, and the reward it names.
        base_model: the name of the model that is trained on, which a reward model must have been trained on too.

    Raises:
        TrainingError: names the parameter, its value and what is allowed.
    """
    if recipe.method not in ONLINE:
        return None
    check = None
    if recipe.reward_check is not None:
        named = {one.name: one for one in policy.checks}
        check = named.get(recipe.reward_check)
        if check is None:
            allowed = ", ".join(map(repr, named)) or f"none: task {task!r} declares no checks"
            raise TrainingError(f"training parameters: reward_check: {recipe.reward_check!r}; allowed: {allowed}")
    adapter = None if recipe.reward_adapter is None else _reward_model(home, recipe.reward_adapter, base_model)
    return RewardSource(task=task, adapter=adapter, check=check, config_dir=config_dir.resolve())


def _reward_model(home: Path, name: str, base_model: str) -> Path:
    field = f"training parameters: reward_adapter: {name!r}"
    folder = home.resolve() / "adapters" / name
    try:
        manifest = registry.read(folder)
        verify(folder, name, manifest.weights_sha256, manifest.files, FileHashes())
    except (TrainingError, AdapterRefused) as error:
        raise TrainingError(f"{field}: {error}") from error
    if manifest.method != "reward":
        raise TrainingError(f"{field} was trained by method {manifest.method!r}; allowed: one by 'reward'")
    if manifest.status != "registered":
        raise TrainingError(f"{field} is {manifest.status}: {manifest.reason}; allowed: a registered one")
    if manifest.base_model != base_model:
        raise TrainingError(f"{field} is of base model {manifest.base_model!r}; allowed: of {base_model!r}")
    return folder
