"""What a run tells while it goes: one line of figures a logging step, each step once, also over a kill."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ratchet.schemas.errors import TrainingError
from ratchet.trainers.registry import write_whole

Line = dict[str, float]

TOLD = {
    "rewards/accuracies": "reward_accuracy",
    "rewards/margins": "reward_margin",
    "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward",
    "accuracy": "reward_accuracy",
    "margin": "reward_margin",
    "reward": "reward",
    "reward_std": "reward_sd",
    "frac_reward_zero_std": "reward_same",
    "kl": "kl",
    "completions/mean_length": "answer_tokens",
    "completions/clipped_ratio": "answers_cut",
    "grad_norm": "grad_norm",
    "learning_rate": "lr",
}
"""What TRL logs besides the loss, and what a progress line calls it.

``reward_same`` is the share of prompts all of whose answers got the same reward, so that nothing was learned from
them; ``answers_cut`` the share of answers that reached their limit before they ended.
"""


def lines(file: Path) -> Iterator[Line]:
    """The lines of a progress file; one that is still being written, or was torn by a kill, is left out."""
    if file.is_file():
        raw = file.read_bytes()
        for line in raw[: raw.rfind(b"\n") + 1].splitlines():
            yield json.loads(line)


def callback(file: Path, steps: int, history: list[Line], measured: Line) -> Any:
    """A callback that writes one line a logging step, and stops a run whose loss is no longer a finite number.

    Args:
        file: the progress file; what is not in ``history`` is taken out.
        steps: of the whole run.
        history: the lines that earlier attempts wrote; gets the others.
        measured: held-out figures of the step, taken into its line.
    """
    from transformers import TrainerCallback

    write_whole(file, "".join(json.dumps(line) + "\n" for line in history).encode())

    class Progress(TrainerCallback):  # type: ignore[misc]
        began = first = 0.0
        step_began = computing = tokens = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began, self.first = time.monotonic(), state.global_step

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.step_began = time.monotonic()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.computing += time.monotonic() - self.step_began  # evaluations and checkpoints are left out

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if not logs or "loss" not in logs:
                return
            step = int(state.global_step)
            left = (time.monotonic() - self.began) / max(1, step - self.first) * (steps - step)
            line = {"step": step, "steps": steps, "loss": float(logs["loss"])}
            line |= {ours: float(logs[theirs]) for theirs, ours in TOLD.items() if logs.get(theirs) is not None}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(line[name]):
                    raise TrainingError(f"{name} is {line[name]} at step {step} of {steps}: the run stopped")
            if "num_tokens" in logs:  # TRL counts them from where the attempt began
                line["tokens_s"] = round((logs["num_tokens"] - self.tokens) / max(self.computing, 1e-9), 1)
                self.tokens, self.computing = logs["num_tokens"], 0.0
            line |= measured
            measured.clear()
            line |= {"peak_mb": peak_mb(), "eta_s": round(left, 1)}
            history.append(line)
            with file.open("a") as out:
                out.write(json.dumps(line) + "\n")

    return Progress()


def peak_mb() -> float:
    """The most memory that this process has had: of the GPU where it trains on one, else of the machine; MiB."""
    import torch

    if torch.cuda.is_available():
        return round(float(torch.cuda.max_memory_allocated()) / 2**20, 1)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10), 1)


def has(history: Sequence[Line], name: str) -> bool:
    """Whether any line has a figure."""
    return any(name in line for line in history)


def last(history: Sequence[Line], name: str) -> float:
    """The mean of a figure over the last tenth of the lines that have it."""
    values = [line[name] for line in history if name in line]
    late = values[-max(1, len(values) // 10) :]
    return sum(late) / len(late)
