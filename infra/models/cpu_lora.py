"""LoRA on vLLM's CPU path, the tokens of a step grouped by adapter (vLLM imports this by name; see cpu_plugin.py)."""

from __future__ import annotations

from typing import Any

import torch
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU


class GroupedByAdapter(PunicaWrapperCPU):  # type: ignore[misc]
    """Computes ``y[i] += scale * x[i] @ A[adapter(i)].T @ B[adapter(i)].T`` with one pair of products an adapter."""

    def update_metadata(self, *args: Any, **kwargs: Any) -> None:
        """Take the step's mapping of tokens to adapters, and group it once for all layers."""
        super().update_metadata(*args, **kwargs)
        self.group()

    def group(self) -> None:
        """List (adapter slot, its rows; None: all rows) for the step's tokens."""
        slots = self.token_lora_indices
        self._groups: list[tuple[int, torch.Tensor | None]] = []
        for slot in torch.unique(slots).tolist():
            if slot >= 0:  # -1: no adapter
                rows = (slots == slot).nonzero(as_tuple=True)[0]
                self._groups.append((int(slot), None if rows.numel() == slots.numel() else rows))

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Add the adapters' part to a linear layer's output, in place.

        Args:
            y: (tokens, sum of output_slices), changed.
            x: (tokens, inputs).
            lora_a_stacked: for each slice (slots, 1, rank, inputs).
            lora_b_stacked: for each slice (slots, 1, outputs, rank).
            scale: the adapters' scaling, already in B where vLLM has merged it.
            output_slices: outputs of each slice.
        """
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self._groups:
            inputs = x if rows is None else x.index_select(0, rows)
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                part = inputs @ a[slot, 0].t() @ b[slot, 0].t()
                out = y[:, start : start + width]
                if rows is None:
                    out.add_(part, alpha=scale)
                else:
                    out.index_add_(0, rows, part, alpha=scale)
                start += width
