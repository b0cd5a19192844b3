"""How much memory a training takes, and what would make it fit: properties of the arithmetic."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.rules.footprint import MIB, Shape, fitting, footprint

SMALL = Shape(
    parameters=134_515_008,
    linear=106_168_320,
    trained=2_442_240,
    layers=30,
    hidden=576,
    inner=1536,
    query=576,
    keys=192,
    vocabulary=49152,
)
SEVEN_B = Shape(
    parameters=6_738_415_616,
    linear=6_476_005_376,
    trained=19_988_480,
    layers=32,
    hidden=4096,
    inner=11008,
    query=4096,
    keys=4096,
    vocabulary=32000,
)
kinds = st.sampled_from(["lora", "dora", "ia3", "prefix", "prompt", "full"])


def peak(shape: Shape, recipe: Recipe, longest: int = 128) -> int:
    """In 16 bits, as on a GPU, with nothing held out."""
    whole = replace(shape, trained=shape.parameters) if recipe.adapter_type == "full" else shape
    return footprint(whole, recipe, longest=longest, held_out=0, dtype_bytes=2, runtime=0, gpu=True).total


@given(
    kind=kinds, method=st.sampled_from(["dpo", "sft", "kto"]), size=st.integers(2, 64), longest=st.integers(16, 4096)
)
def test_more_rows_longer_rows_and_more_parameters_take_more(kind: str, method: str, size: int, longest: int) -> None:
    """The peak grows with the batch, the length and the model; checkpointing and 4 bits never take more."""
    recipe = Recipe.model_validate({"adapter_type": kind, "method": method, "batch_size": size})
    least = peak(SMALL, recipe, longest)
    assert peak(SMALL, recipe.model_copy(update={"batch_size": size + 1}), longest) > least
    assert peak(SMALL, recipe, longest + 16) > least
    assert peak(SEVEN_B, recipe, longest) > least
    if kind not in ("full", "prefix"):
        assert peak(SMALL, recipe.model_copy(update={"gradient_checkpointing": True}), longest) < least
        assert peak(SMALL, recipe.model_copy(update={"quantization": "nf4"}), longest) < least


def test_the_figures_that_everybody_knows() -> None:
    """A model of 7 billion weights: 3.5 GB in 4 bits, 13.5 GB in 16, and 16 bytes a weight to train whole in 32."""
    common: dict[str, Any] = {"longest": 1, "held_out": 0, "runtime": 0, "gpu": True}
    whole = replace(SEVEN_B, trained=SEVEN_B.parameters)
    lora = footprint(SEVEN_B, Recipe(), dtype_bytes=2, **common)
    qlora = footprint(SEVEN_B, Recipe(quantization="nf4"), dtype_bytes=2, **common)
    full = footprint(whole, Recipe(method="sft", adapter_type="full"), dtype_bytes=4, **common)
    assert lora.weights == pytest.approx(13.5e9, rel=0.02)
    assert qlora.weights == pytest.approx(3.8e9, rel=0.03)
    assert full.weights + full.gradients + full.optimizer == 16 * SEVEN_B.parameters
    eight = footprint(
        whole, Recipe(method="sft", adapter_type="full", optimizer="paged_adamw_8bit"), dtype_bytes=4, **common
    )
    assert eight.optimizer < 0.26 * full.optimizer


def test_a_reference_is_kept_only_where_the_base_model_is_not_there_any_more() -> None:
    """Of a whole model that learns from preferences, unless its figures were taken before."""
    whole = replace(SMALL, trained=SMALL.parameters)

    def reference(shape: Shape, **settings: Any) -> int:
        recipe = Recipe.model_validate(settings)
        return footprint(shape, recipe, longest=8, held_out=0, dtype_bytes=4, runtime=0, gpu=False).reference

    assert reference(SMALL) == 0
    assert reference(whole, adapter_type="full") == 4 * SMALL.parameters
    assert reference(whole, adapter_type="full", precompute_reference=True) == 0
    assert reference(whole, adapter_type="full", method="sft") == 0


@given(
    kind=kinds,
    method=st.sampled_from(["dpo", "sft", "kto"]),
    size=st.integers(2, 32),
    longest=st.integers(32, 4096),
    share=st.floats(0.05, 1.2),
)
def test_what_is_advised_fits(kind: str, method: str, size: int, longest: int, share: float) -> None:
    """Whatever is advised is a recipe that can be and fits; nothing is advised only where nothing would do."""
    recipe = Recipe.model_validate({"adapter_type": kind, "method": method, "batch_size": size, "max_length": 4096})

    def needs(changed: Recipe, length: int) -> int:
        return peak(SMALL, changed, length)

    available = int(share * needs(recipe, longest))
    advised = fitting(recipe, longest, available, needs)
    for change in advised:
        changed = Recipe.model_validate(recipe.model_dump() | change)
        assert needs(changed, min(longest, changed.max_length)) <= available
        if "batch_size" in change:
            assert changed.batch_size * changed.gradient_accumulation == size
    if not advised:
        divisors = [one for one in range(1, size + 1) if size % one == 0 and (one > 1 or method != "kto")]
        together = {"batch_size": divisors[0], "gradient_accumulation": size // divisors[0]}
        smallest: dict[str, Any] = together | {"max_length": 64}
        if kind != "prefix":
            smallest["gradient_checkpointing"] = True
        if kind not in ("ia3", "full"):
            smallest["quantization"] = "nf4"
        if kind == "full" and method != "sft":
            smallest["precompute_reference"] = True
        least = Recipe.model_validate(recipe.model_dump() | smallest)
        assert needs(least, min(longest, 64)) > available


def test_the_setting_that_is_enough_is_named() -> None:
    """Twice the layers' memory: a smaller batch alone, or computing activations again alone, is enough."""
    recipe = Recipe(batch_size=8)

    def needs(changed: Recipe, length: int) -> int:
        return peak(SMALL, changed, length)

    advised = fitting(recipe, 512, needs(recipe, 512) // 2, needs)
    assert {"gradient_checkpointing": True} in advised
    assert {"batch_size": 2, "gradient_accumulation": 4} in advised
    assert fitting(recipe, 512, 10 * MIB, needs) == []
