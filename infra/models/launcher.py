"""How the embedded model server is started: vLLM on the CPU, one process tree on loopback.

The figures behind the choices are in docs/experiments.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from ratchet.infra.models import cpu_plugin

START_TIMEOUT_S = 240.0
"""The longest a start may take on a slow machine; 30 to 60 s are usual on two cores."""

KNOWN_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's ``--max-lora-rank`` takes."""


@dataclass(frozen=True, slots=True)
class VllmServer:
    """One vLLM server to start.

    Args:
        model: Hugging Face folder of the base model.
        served_name: the name under which the base model is served.
        port: free port on ``host``.
        host: where it listens; it has no keys of its own, so loopback.
        dtype: of the weights; None takes `fast_dtype`.
        max_model_len: the most tokens of prompt and answer of one request.
        max_num_seqs: requests in one batch; more wait.
        max_loras: adapters in one batch: stable, candidate, previous and one in passing.
        max_lora_rank: the largest rank an adapter may have, rounded up to one that vLLM knows. Every
            adapter computes at this rank, and on a CPU vLLM copies that much weight for every token:
            no larger than the recipe's rank.
        kv_cache_gib: memory for keys and values, whole GiB.
        threads: cores to compute on; None takes all that this process may use.
    """

    model: Path
    served_name: str
    port: int
    host: str = "127.0.0.1"
    dtype: str | None = None
    max_model_len: int = 1024
    max_num_seqs: int = 32
    max_loras: int = 4
    max_lora_rank: int = 8
    kv_cache_gib: int = 1
    threads: int | None = None

    @property
    def url(self) -> str:
        """Address without ``/v1``."""
        return f"http://{self.host}:{self.port}"

    def argv(self) -> list[str]:
        """Command line, without a shell; ``vllm serve`` would not work: the CPU package has another name."""
        return [
            sys.executable,
            "-m",
            "vllm.entrypoints.openai.api_server",
            *("--model", str(self.model)),
            *("--served-model-name", self.served_name),
            *("--host", self.host),
            *("--port", str(self.port)),
            *("--dtype", self.dtype or fast_dtype()),
            *("--max-model-len", str(self.max_model_len)),
            *("--max-num-seqs", str(self.max_num_seqs)),
            # Blocks of 32 tokens instead of 128, so that a short system prompt is cached too.
            *("--block-size", "32"),
            "--enable-lora",
            *("--max-loras", str(self.max_loras)),
            *("--max-cpu-loras", str(self.max_loras)),
            *("--max-lora-rank", str(known_rank(self.max_lora_rank))),
            # Mirrored copies wait behind users' requests.
            *("--scheduling-policy", "priority"),
            # With adapters vLLM compiles nothing on a CPU; saying so spares it the attempt.
            "--enforce-eager",
            # The gateway logs requests; a line a request here only costs.
            "--disable-uvicorn-access-log",
        ]

    def env(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Environment: what is inherited, and what this server needs over it."""
        # vLLM's own choice keeps one core for its front end, which on two cores halves the speed.
        threads = self.threads or usable_cores()
        return {
            **inherited,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": str(self.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(threads),
            "VLLM_PLUGINS": cpu_plugin.PLUGIN,
            # Threads that wait must sleep: the gateway, ClickHouse and the consumers share these cores.
            "OMP_WAIT_POLICY": "PASSIVE",
            # The first request for log-probabilities (a judge's) would have vLLM compile two lines of arithmetic as
            # C++: everybody waits for 17 s of processor time, and the machine must have a compiler.
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }

    def ready(self) -> bool:
        """Say whether it serves now; answers within a second or two, and never raises."""
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


def known_rank(rank: int) -> int:
    """Round a LoRA rank up to the next that vLLM can be started with.

    Raises:
        ValueError: the rank is below 1 or above vLLM's largest.
    """
    if not 1 <= rank <= KNOWN_RANKS[-1]:
        raise ValueError(f"LoRA rank {rank}; allowed: 1 to {KNOWN_RANKS[-1]}")
    return next(known for known in KNOWN_RANKS if known >= rank)


def fast_dtype(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The dtype that this processor multiplies faster.

    bfloat16 halves the memory traffic, but a processor without instructions for it takes 5 to 16
    times as long as for float32.

    Args:
        cpuinfo: where Linux tells the processor's features; elsewhere float32 is safe.
    """
    try:
        features = set(cpuinfo.read_text().split())
    except OSError:
        features = set()
    # Intel and AMD, AMX, Arm
    return "bfloat16" if features & {"avx512_bf16", "amx_bf16", "bf16"} else "float32"


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
