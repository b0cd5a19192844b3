"""A run that has no memory left says which settings need less."""

import pytest

from ratchet.schemas.errors import TrainingError
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.stopping import out_of_memory


def test_a_failed_allocation_names_the_settings_to_change() -> None:
    """The allocator really refuses a petabyte; the sentence has the values that are set now."""
    import torch

    with pytest.raises(TrainingError) as caught, out_of_memory(Recipe(batch_size=8, max_length=1024)):
        torch.empty(1 << 50, dtype=torch.uint8)
    for said in ("batch_size (8)", "max_length (1024)", "gradient_checkpointing = true", "gradient_accumulation is 1"):
        assert said in str(caught.value)


def test_what_is_set_already_is_not_proposed() -> None:
    """One row a batch cannot be fewer, and checkpointing is on."""
    with (
        pytest.raises(TrainingError) as caught,
        out_of_memory(Recipe(batch_size=1, gradient_checkpointing=True)),
    ):
        raise MemoryError
    assert "batch_size" not in str(caught.value)
    assert "gradient_checkpointing" not in str(caught.value)


def test_another_error_stays_what_it_is() -> None:
    """Shapes that do not fit are no lack of memory."""
    import torch

    with pytest.raises(RuntimeError, match="shapes"), out_of_memory(Recipe()):
        torch.ones(2, 3) @ torch.ones(2, 3)
