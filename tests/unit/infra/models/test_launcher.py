"""The command line and environment of the embedded vLLM."""

from pathlib import Path

import pytest

from ratchet.infra.models.launcher import VllmServer, fast_dtype, known_rank, usable_cores


def test_the_command_line_allows_adapters_at_runtime() -> None:
    """Adapters are on, counts and ranks are what was asked; the environment opens the load route, compiles nothing."""
    server = VllmServer(Path("/models/base"), "base", 18000, max_lora_rank=9)
    argv = server.argv()
    assert "--enable-lora" in argv
    assert argv[argv.index("--max-loras") + 1] == "4"
    assert argv[argv.index("--max-lora-rank") + 1] == "16"
    assert argv[argv.index("--model") + 1] == "/models/base"
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert argv[argv.index("--scheduling-policy") + 1] == "priority"
    env = server.env({"PATH": "/bin", "OMP_NUM_THREADS": "64"})
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    assert env["TORCHDYNAMO_DISABLE"] == "1"
    assert env["PATH"] == "/bin"
    assert env["OMP_NUM_THREADS"] == str(usable_cores())


@pytest.mark.parametrize(
    ("features", "dtype"),
    [("flags : fma avx2 avx512_bf16", "bfloat16"), ("Features : fp bf16 i8mm", "bfloat16"), ("fma avx2", "float32")],
)
def test_weights_have_the_dtype_that_the_processor_is_fast_at(tmp_path: Path, features: str, dtype: str) -> None:
    """bfloat16 only where there are instructions for it, and float32 where nobody says."""
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{features}\n")
    assert fast_dtype(tmp_path / "cpuinfo") == dtype
    assert fast_dtype(tmp_path / "none") == "float32"


def test_a_server_that_is_not_there_is_not_ready() -> None:
    """The readiness check answers no, and raises nothing."""
    assert not VllmServer(Path("/models/base"), "base", 1).ready()


@pytest.mark.parametrize("rank", [0, -1, 513])
def test_a_rank_that_vllm_cannot_serve_is_refused(rank: int) -> None:
    """Better before the start than after a minute of loading."""
    with pytest.raises(ValueError, match="LoRA rank"):
        known_rank(rank)
