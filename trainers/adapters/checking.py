"""Whether a model that was made of another one still answers like it: the next token's logits on the same prompts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.schemas.errors import TrainingError

POSITIONS = 48
"""Of each prompt the last so many tokens are compared: what they predict is what the task is about."""
MOST_PROMPTS = 16
MOST_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a model may be from the one that it was made of.

    ``logit``: the largest difference of one logit, in nats; ``argmax``: the least share of positions at which both
    find the same token likeliest.
    """

    logit: float
    argmax: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was measured: over ``n`` positions of ``prompts`` prompts."""

    prompts: int
    n: int
    max_abs_difference: float
    argmax_agreement: float

    def refuse_beyond(self, allowed: Tolerance, what: str) -> None:
        """Refuse a model that is too far away.

        Raises:
            TrainingError: says what was measured and what is allowed.
        """
        if self.max_abs_difference <= allowed.logit and self.argmax_agreement >= allowed.argmax:
            return
        raise TrainingError(
            f"{what}: logits differ by up to {self.max_abs_difference:.4g} (allowed: {allowed.logit:g}) and the"
            f" likeliest token agrees at {self.argmax_agreement:.1%} of {self.n} positions ({allowed.argmax:.1%})"
        )


def prompts(tokenizer: Any, conversations: Iterable[Sequence[Mapping[str, Any]]]) -> list[list[int]]:
    """Token ids of conversations as serving renders them; at most `MOST_PROMPTS`, each cut to its last `MOST_TOKENS`.

    Args:
        tokenizer: of the base model.
        conversations: chat messages; one that ends with the assistant's answer is compared over the answer too.
    """
    found = []
    for messages in conversations:
        ends = messages[-1].get("role") != "assistant"
        ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=ends, return_dict=False)
        found.append(list(ids)[-MOST_TOKENS:])
        if len(found) == MOST_PROMPTS:
            break
    return found


def logits(model: Any, sequences: Sequence[Sequence[int]]) -> list[Any]:
    """The logits at the last `POSITIONS` tokens of each sequence: float32 tensors ``(positions, vocabulary)``."""
    import torch

    model.eval()
    with torch.no_grad():
        return [model(torch.tensor([list(ids)])).logits[0, -POSITIONS:].float() for ids in sequences]


def agreement(reference: Sequence[Any], made: Sequence[Any]) -> Agreement:
    """Compare what `logits` gave for two models; a vocabulary that was padded is compared as far as both reach.

    Raises:
        TrainingError: nothing was compared.
    """
    n = equal = 0
    worst = 0.0
    for one, other in zip(reference, made, strict=True):
        size = min(one.shape[-1], other.shape[-1])
        one, other = one[..., :size], other[..., :size]
        difference = (one - other).abs().max().item()
        # a NaN is no small difference
        worst = difference if not difference <= worst else worst
        equal += int((one.argmax(-1) == other.argmax(-1)).sum().item())
        n += one.shape[0]
    if not n:
        raise TrainingError("there is no prompt to compare the models on")
    return Agreement(len(reference), n, worst, equal / n)
