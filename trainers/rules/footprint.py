"""How much memory a training takes, term by term, and which settings would make it fit.

What is counted: the weights by their dtype or quantized, a reference model where one is kept, gradients and the
optimizer's states of what is trained, what the layers keep for the way back, and the logits of the answers. The layers'
part is counted tensor by tensor of a decoder of the Llama kind (attention without its matrix, a gated feed-forward
layer), which a test holds to what torch really keeps. The reference forward of dpo and kto keeps nothing.

Sources: Korthikanti et al., "Reducing Activation Recomputation in Large Transformer Models" (2022), section 4, for what
is counted; Dettmers et al., "QLoRA" (2023): NF4 takes 4.127 bits a weight with its constants quantized; TRL's fused
head (``trl.kernels``) for the tiles of logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ratchet.schemas.training_policy import ONLINE, Recipe

MIB = 1024**2
FLOAT32 = 4
NF4_BYTES = 4.127 / 8
SCORED_AT_ONCE = 16
"""Held-out sequences in one forward pass."""
TILE_TOKENS, TILE_WIDTH = 4096, 32768
"""Of TRL's fused head: tokens and vocabulary of one tile."""
TILES_ON_CPU, TILES_ON_GPU = 9, 1
"""How many of its size the head's arithmetic needs at once: on a GPU one kernel does it in place. Measured on a CPU."""
SLACK_ON_CPU, SLACK_ON_GPU = 1.45, 1.1
"""Memory that a step makes the allocator take, by what the step uses. Measured on a CPU (docs/experiments.md)."""
PROJECTIONS = 7
"""Linear layers of a decoder's layer: query, key, value, output, gate, up, down."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is made of.

    Args:
        parameters: all of them.
        linear: weights of linear layers but the head: what is quantized.
        trained: parameters that learn.
        layers: of the decoder.
        hidden: width of a token's state.
        inner: width of the feed-forward layer.
        query: width of all heads together.
        keys: width of all heads of the keys together.
        vocabulary: number of tokens that there are.
    """

    parameters: int
    linear: int
    trained: int
    layers: int
    hidden: int
    inner: int
    query: int
    keys: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by what they are for; ``total`` is the peak. ``reference``: of a reference model, and of a reward model."""

    runtime: int
    weights: int
    reference: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    held_out: int
    """Of measuring held-out rows, before and after: nothing is kept for the way back then, but all logits are there."""
    accumulated: bool
    """Gradients stay from one batch of a step to its next."""

    @property
    def total(self) -> int:
        """The peak: what stays, and the larger of a step and a measuring.

        On the way back gradients come where activations go; accumulated ones are there beside the next batch's.
        """
        stays = self.runtime + self.weights + self.reference + self.optimizer
        both = self.gradients + self.activations if self.accumulated else max(self.gradients, self.activations)
        return stays + max(both + self.logits, self.held_out)

    def as_json(self) -> dict[str, int]:
        """Every term and the total, in bytes."""
        terms = asdict(self)
        terms.pop("accumulated")
        return terms | {"total": self.total}


def footprint(
    shape: Shape, recipe: Recipe, *, longest: int, held_out: int, dtype_bytes: int, runtime: int, gpu: bool
) -> Footprint:
    """Estimate a run's peak memory.

    Args:
        shape: the model with what is trained.
        recipe: how it is trained.
        longest: tokens of the longest row, prompt and answer.
        held_out: tokens of the longest held-out row; 0 where nothing is held out.
        dtype_bytes: of a weight that is not quantized, and of what is computed.
        runtime: bytes that the process has before it loads a model.
        gpu: it is trained on one.
    """
    tiles, slack = (TILES_ON_GPU, SLACK_ON_GPU) if gpu else (TILES_ON_CPU, SLACK_ON_CPU)
    whole = recipe.adapter_type == "full"
    # adapters beside weights in 16 bits learn in 32, beside 4 bits in 16
    learning = dtype_bytes if whole else 2 if recipe.quantization else FLOAT32
    frozen = shape.parameters - (0 if whole else shape.trained)
    weights = shape.trained * (0 if whole else learning) + frozen * dtype_bytes
    if recipe.quantization:
        weights -= round(shape.linear * (dtype_bytes - NF4_BYTES))
    keeps_reference = whole and recipe.method not in ("sft", "reward") and not recipe.precompute_reference
    references = int(keeps_reference) + int(recipe.reward_adapter is not None)
    sequences = recipe.batch_size * (2 if recipe.method in ("dpo", "reward") else 1)
    virtual = recipe.virtual_tokens if recipe.adapter_type in ("prefix", "prompt") else 0
    tokens = sequences * (longest + virtual)
    layer = tokens * kept_by_a_layer(shape, recipe, dtype_bytes)
    if recipe.adapter_type == "dora":  # the product of its matrices, as wide as the weights
        layer += shape.linear // shape.layers * FLOAT32
    if recipe.gradient_checkpointing:
        activations = shape.layers * tokens * shape.hidden * dtype_bytes + 2 * layer
    else:
        activations = (shape.layers + 1) * layer
    if recipe.packing:  # who may see whom, of all tokens of a batch, as booleans and in the dtype of the attention
        activations += tokens * tokens * (1 + dtype_bytes)
    tile = min(tokens, TILE_TOKENS) * TILE_WIDTH * max(dtype_bytes, 2)
    head = shape.vocabulary * shape.hidden * FLOAT32 if whole else 0
    scored = SCORED_AT_ONCE * (held_out + virtual)
    words = 0 if recipe.method == "reward" else shape.vocabulary
    return Footprint(
        runtime=runtime,
        weights=weights,
        reference=references * shape.parameters * dtype_bytes,
        gradients=shape.trained * learning,
        optimizer=round(
            shape.trained * {"paged_adamw_8bit": 2.03, "paged_adamw_32bit": 8}.get(recipe.optimizer, 2 * learning)
        ),
        activations=round(slack * activations),
        logits=0 if recipe.method == "reward" else round(slack * tiles * tile) + head,
        held_out=scored * (words * dtype_bytes + kept_by_a_layer(shape, recipe, dtype_bytes)) if held_out else 0,
        accumulated=recipe.gradient_accumulation > 1,
    )


def kept_by_a_layer(shape: Shape, recipe: Recipe, dtype_bytes: int) -> int:
    """Bytes that one decoder layer keeps for the way back, for each token.

    With float32 everything has one size. With 16 bits the norms, and what goes into an adapter's matrices, are
    kept in 32 bits beside.
    """
    h, f, q, k = shape.hidden, shape.inner, shape.query, shape.keys
    attention = 2 * q + 2 * k
    norms = 2 * h
    match recipe.adapter_type:
        case "full":
            return dtype_bytes * (4 * f + 4 * h + attention) + FLOAT32 * norms
        case "lora" | "dora":
            matrices = 2 if recipe.quantization else FLOAT32
            into = (2 * h if dtype_bytes == matrices else 6 * h) + f + PROJECTIONS * recipe.lora_r
            kept = dtype_bytes * (3 * f + attention) + matrices * into + FLOAT32 * norms
            # the outputs of the frozen layer and of the adapter, to which the magnitude is applied
            return kept + (2 * matrices * (2 * q + 2 * k + 2 * f + h) if recipe.adapter_type == "dora" else 0)
        case "ia3":
            return dtype_bytes * (3 * f + attention + 2 * k) + FLOAT32 * (norms + f)
        case "prefix" | "prompt":
            return dtype_bytes * (3 * f + attention) + FLOAT32 * norms


def fitting(recipe: Recipe, longest: int, available: int, needs: Callable[[Recipe, int], int]) -> list[dict[str, Any]]:
    """Find what would make a run fit that does not.

    Args:
        recipe: as it is wanted.
        longest: tokens of the longest row.
        available: bytes.
        needs: the peak of a recipe whose longest row has so many tokens.

    Returns:
        The settings to change, by name: every change that is enough by itself; where none is, as many together as
        are; none where all together are not.
    """

    def enough(changed: Recipe) -> bool:
        return needs(changed, min(longest, changed.max_length)) <= available

    ladders = _ladders(recipe, longest)
    alone = [next((step for step in ladder if enough(recipe.model_copy(update=step))), None) for ladder in ladders]
    if found := [step for step in alone if step is not None]:
        return found
    together: dict[str, Any] = {}
    for ladder in ladders:
        for step in ladder:
            changed = recipe.model_copy(update=together | step)
            if enough(changed):
                return [together | step]
        together |= ladder[-1]
    return []


def _ladders(recipe: Recipe, longest: int) -> list[list[dict[str, Any]]]:
    """What may be changed, the cheapest first, and of each the values from the nearest to the farthest."""
    found: list[list[dict[str, Any]]] = []
    if recipe.adapter_type == "full" and recipe.method in ("dpo", "kto") and not recipe.precompute_reference:
        found.append([{"precompute_reference": True}])
    if not recipe.gradient_checkpointing and recipe.adapter_type != "prefix":
        found.append([{"gradient_checkpointing": True}])
    least = 2 if recipe.method == "kto" and recipe.kto_loss == "kto" else 1
    sizes = [size for size in range(recipe.batch_size - 1, least - 1, -1) if recipe.batch_size % size == 0]
    if sizes:
        together = recipe.batch_size * recipe.gradient_accumulation
        found.append([{"batch_size": size, "gradient_accumulation": together // size} for size in sizes])
    if recipe.adapter_type not in ("ia3", "full") and recipe.method != "reward" and recipe.quantization is None:
        found.append([{"quantization": "nf4"}])
    shortest = recipe.max_completion_length if recipe.method in ONLINE else 0
    if lengths := [
        {"max_length": length} for length in (1 << power for power in range(16, 5, -1)) if shortest < length < longest
    ]:
        found.append(lengths)
    return found
