"""What a request asks for, over the task's recipe."""

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import LEARNING_RATES, TrainingPolicy
from ratchet.trainers.job import recipe


@pytest.mark.parametrize("kind", ["dora", "ia3", "prefix", "prompt", "full"])
def test_what_servers_cannot_load_is_refused_before_it_is_trained(kind: str) -> None:
    """Where what comes of a recipe is to be loaded the setting is named; where it is only registered it may be."""
    wanted = {"adapter_type": kind}
    with pytest.raises(TrainingError, match=f"adapter_type '{kind}'.*allowed: with `ratchet train --no-serve`"):
        recipe(TrainingPolicy(), wanted, loads=True)
    assert recipe(TrainingPolicy(), wanted).adapter_type == kind


def test_a_learning_rate_suits_what_is_trained_unless_it_is_said() -> None:
    """The rate of the adapter's type is written into the job; one of the policy or the request goes over it."""
    assert recipe(TrainingPolicy(), {}).learning_rate == LEARNING_RATES["lora"]
    assert recipe(TrainingPolicy(), {"adapter_type": "full"}).learning_rate == LEARNING_RATES["full"]
    assert recipe(TrainingPolicy(learning_rate=0.5), {"adapter_type": "full"}).learning_rate == 0.5
    assert recipe(TrainingPolicy(learning_rate=0.5), {"learning_rate": 0.25}).learning_rate == 0.25
