"""The grouped LoRA computation gives what vLLM's own CPU kernels give."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow  # importing vLLM takes a while

TOKENS, INPUTS, RANK, SLOTS = 24, 32, 8, 3
SLICES = (16, 8)


@pytest.fixture(scope="module")
def torch() -> Any:
    """PyTorch, imported when these tests run."""
    import torch

    return torch


def wrapper(kind: Any, torch: Any, slots: list[int]) -> Any:
    """A wrapper in the middle of a step whose tokens belong to these adapter slots (-1: none)."""
    made = kind(max_num_batched_tokens=64, max_batches=8, device="cpu")
    made._token_lora_indices[: len(slots)] = torch.tensor(slots)
    made.indices_len[0] = len(slots)
    made.is_prefill = False
    return made


@pytest.mark.parametrize("slots", [[0] * TOKENS, [-1] * TOKENS, [0, 1, -1, 2] * 6, [-1] * 20 + [2] * 4, [0, 1, 2] * 8])
def test_grouped_products_are_what_lora_is(torch: Any, slots: list[int]) -> None:
    """Whatever mixture of adapters a step has, each token gets its own adapter's part, and none where it has none.

    vLLM's own kernels are the second oracle, but only for tokens with an adapter: they take -1 as an
    index, so a token without one gets the last slot's.
    """
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from ratchet.infra.models.cpu_lora import GroupedByAdapter

    torch.manual_seed(0)
    x = torch.randn(TOKENS, INPUTS)
    a = tuple(torch.randn(SLOTS, 1, RANK, INPUTS) for _ in SLICES)
    b = tuple(torch.randn(SLOTS, 1, width, RANK) for width in SLICES)
    start = torch.randn(TOKENS, sum(SLICES))
    expected = start.clone()
    for token, slot in enumerate(slots):
        if slot >= 0:
            expected[token] += 0.5 * torch.cat(
                [bi[slot, 0] @ (ai[slot, 0] @ x[token]) for ai, bi in zip(a, b, strict=True)]
            )
    grouped = start.clone()
    ours = wrapper(GroupedByAdapter, torch, slots)
    ours.group()
    ours.add_lora_linear(grouped, x, a, b, 0.5, SLICES)
    assert torch.allclose(grouped, expected, atol=1e-3)
    if -1 not in slots:
        stock = start.clone()
        wrapper(PunicaWrapperCPU, torch, slots).add_lora_linear(stock, x, a, b, 0.5, SLICES)
        assert torch.allclose(grouped, stock, atol=1e-3)


def test_the_plugin_does_nothing_on_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vLLM that was not measured keeps its own kernels."""
    from vllm.platforms import current_platform

    from ratchet.infra.models import cpu_plugin

    before = type(current_platform).get_punica_wrapper
    monkeypatch.setattr(cpu_plugin, "TESTED_VLLM", "0.0.1")
    cpu_plugin.register()
    assert type(current_platform).get_punica_wrapper == before
