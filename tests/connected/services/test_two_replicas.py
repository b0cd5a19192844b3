"""Two real vLLM replicas: an adapter is loaded on both, answers alike on both, and is found out where it does not."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tiny_model import write_tiny_llama

from ratchet.infra.embedded.ports import free_port
from ratchet.infra.models.launcher import VllmServer
from ratchet.infra.models.vllm import VllmClient
from ratchet.schemas.errors import ModelError
from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import derived_id
from ratchet.services.controller.canary import Canary, Records
from ratchet.services.controller.residents import ensure

pytestmark = [pytest.mark.connected, pytest.mark.slow]
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID = derived_id(int(NOW.timestamp() * 1000), "x")
START_S = 300


def write_adapter(base: Path, folder: Path, seed: int) -> Path:
    """A LoRA of random weights that changes answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    config = LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def adapter(number: int, folder: Path) -> Adapter:
    """Its manifest."""
    return Adapter.model_validate(
        {
            "id": ID, "at": NOW, "task": "support", "name": f"support@v{number}-{number:08d}", "label": "l",
            "status": "registered", "method": "dpo", "base_model": "tiny", "path": str(folder),
            "weights_sha256": "0" * 64, "dataset": "d", "dataset_sha256": "0" * 64, "job_id": ID,
        }
    )  # fmt: skip


def end(process: "subprocess.Popen[bytes]") -> None:
    """Stop a server and its workers; one that is still starting takes no notice of a signal to end."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model of two layers."""
    return write_tiny_llama(tmp_path_factory.mktemp("tiny"), heads=1)


@pytest.fixture(scope="module")
def urls(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two vLLM servers of it."""
    logs = tmp_path_factory.mktemp("vllm")
    servers = [
        VllmServer(model, "tiny", free_port(), dtype="float32", max_model_len=256, max_num_seqs=4, threads=1)
        for _ in range(2)
    ]
    with ExitStack() as stack:
        running = []
        for server in servers:
            log = stack.enter_context((logs / str(server.port)).open("wb"))
            process = subprocess.Popen(
                server.argv(), env=server.env(os.environ), stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(end, process)
            running.append(process)
        deadline = time.monotonic() + START_S
        while not all(server.ready() for server in servers):
            late = time.monotonic() > deadline or any(process.poll() is not None for process in running)
            assert not late, "\n".join(
                (logs / str(server.port)).read_text(errors="replace")[-2_000:] for server in servers
            )
            time.sleep(0.5)
        yield [server.url for server in servers]


def test_replicas_answer_alike_and_one_that_does_not_is_named(model: Path, urls: list[str], tmp_path: Path) -> None:
    """Loaded and confirmed on both; a replica that lost it gets it again; one with other weights is found out."""
    good = adapter(1, write_adapter(model, tmp_path / "good", seed=1))
    torn = adapter(2, write_adapter(model, tmp_path / "torn", seed=2))
    registry = {one.name: one for one in (good, torn)}
    with VllmClient(urls) as replicas:
        canary = Canary(replicas, Records(tmp_path / "answers"), lambda _task: "Be brief.")

        def resident(one: Adapter) -> list[str]:
            """Load where it lacks, forget what was shown there, ask every replica; which ones loaded it."""
            loaded = ensure(replicas, {one.name: urls}, registry, lambda manifest: Path(manifest.path))
            for name, anew in loaded.items():
                canary.forget(name, anew)
            canary.check(one.name, urls, NOW)
            return sorted(loaded.get(one.name, []))

        assert resident(good) == sorted(urls)
        assert resident(good) == []
        with VllmClient(urls[1:]) as second:
            second.unload_adapter(good.name)
        assert resident(good) == urls[1:]

        ensure(replicas, {torn.name: urls[:1]}, registry, lambda manifest: Path(manifest.path))
        shutil.copytree(write_adapter(model, tmp_path / "other", seed=3), torn.path, dirs_exist_ok=True)
        with pytest.raises(ModelError, match=f"{torn.name} does not answer as at {urls[0]}: at {urls[1]}"):
            resident(torn)
        assert set(replicas.models()[urls[0]]) == {"tiny", good.name, torn.name}
