"""Learning from rewards of the model's own answers: GRPO and RLOO, with a reward model, a check, or both.

Sources: Shao et al., "DeepSeekMath" (2024): group relative policy optimization; Ahmadian et al., "Back to Basics:
Revisiting REINFORCE Style Optimization" (2024): the leave-one-out baseline. Loops and losses are TRL's (its default,
"dapo", averages over the tokens of a step). Answers are drawn in this process, from the model as it is at each step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.consumers.check_set import CheckSet
from ratchet.consumers.rules.intervals import wilson
from ratchet.schemas.checks import Answer
from ratchet.schemas.errors import TrainingError
from ratchet.schemas.events import Request
from ratchet.schemas.training_policy import Recipe
from ratchet.trainers.training.encoding import EncodedPrompt
from ratchet.trainers.training.job import TrainingJob
from ratchet.trainers.training.model import pad_beside_end
from ratchet.trainers.training.reward import load_reward_model, rewards

Messages = list[dict[str, str]]
Rewarding = Callable[[Sequence[Messages], Sequence[str], Sequence[list[int]]], list[float | None]]
"""Takes prompts, answers, and the answers' token ids."""
HELD_OUT = 64
"""Held-out prompts that are answered before and after; answering is what takes the time."""
BATCH = 16


@dataclass(frozen=True, slots=True)
class Reward:
    """One source of rewards: its name, its weight, and what it says of answers (None: it cannot say)."""

    name: str
    weight: float
    of: Rewarding
    checked: bool = False
    """Whether it is a check's score, from 0 to 1."""


@contextmanager
def opened(job: TrainingJob) -> Iterator[list[Reward]]:
    """The rewards of a job, the reward model loaded and the check made ready; none for other methods.

    Raises:
        SettingsError: a check that can never run.
    """
    source = job.reward
    with ExitStack() as stack:
        found = []
        if source is not None and source.adapter is not None:
            of = _model(job.base_model, source.adapter, job.recipe)
            found.append(Reward(source.adapter.name, 1.0, of))
        if source is not None and source.check is not None:
            checks = stack.enter_context(CheckSet({source.task: [source.check]}, source.config_dir))
            of = _check(checks, source.task)
            found.append(Reward(source.check.name, job.recipe.check_weight, of, checked=True))
        yield found


def _model(base_model: Path, adapter: Path, recipe: Recipe) -> Rewarding:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(base_model))
    pad_beside_end(tokenizer)
    model = load_reward_model(base_model, adapter, tokenizer, recipe)

    def of(prompts: Sequence[Messages], answers: Sequence[str], ids: Sequence[list[int]]) -> list[float | None]:
        rendered = [
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False) for prompt in prompts
        ]
        return list(rewards(model, [[*prompt, *answer] for prompt, answer in zip(rendered, ids, strict=True)]))

    return of


def _check(checks: CheckSet, task: str) -> Rewarding:
    def of(prompts: Sequence[Messages], answers: Sequence[str], ids: Sequence[list[int]]) -> list[float | None]:
        asked = [Request(messages=[dict(message) for message in prompt]) for prompt in prompts]
        said = [checks.run(task, Answer(text=text, request=to)) for text, to in zip(answers, asked, strict=True)]
        return [one[0][1].score if one else None for one in said]

    return of


def trainer(
    recipe: Recipe,
    rows: Sequence[EncodedPrompt],
    rewarded: Sequence[Reward],
    arguments: dict[str, Any],
    parts: dict[str, Any],
) -> Any:
    """TRL's trainer over prompts; ``rewarded`` from `opened`, the other arguments as in `methods`."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    online, settings = (GRPOTrainer, GRPOConfig) if recipe.method == "grpo" else (RLOOTrainer, RLOOConfig)
    config = settings(
        beta=recipe.beta,
        num_generations=recipe.num_generations,
        max_completion_length=recipe.max_completion_length,
        temperature=recipe.temperature,
        reward_weights=[one.weight for one in rewarded],
        **arguments,
    )
    return online(
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row.messages} for row in rows]),
        reward_funcs=[_function(one) for one in rewarded],
        **parts,
    )


def _function(reward: Reward) -> Callable[..., list[float | None]]:
    def function(*, prompts: Any, completions: Any, completion_ids: Any, **_: Any) -> list[float | None]:
        return reward.of(prompts, [answer[0]["content"] for answer in completions], completion_ids)

    function.__name__ = reward.name  # what TRL logs it under
    return function


def held_out(
    model: Any, tokenizer: Any, rows: Sequence[EncodedPrompt], rewarded: Sequence[Reward], recipe: Recipe
) -> dict[str, dict[str, Any]]:
    """Answer held-out prompts greedily, at most `HELD_OUT` of them, and say what rewards they get.

    Returns:
        By reward the ``n`` answers of which it can say something, and of a reward model their ``mean`` with its
        ``standard_error`` (None below two), of a check the sum of its scores ``k``, ``rate`` = k / n and Wilson's
        95% interval ``low``, ``high``.
    """
    some = rows[:HELD_OUT]
    if not some:
        return {}
    batches = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
    ids = [one for batch in batches for one in _answers(model, tokenizer, batch, recipe)]
    texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
    found: dict[str, dict[str, Any]] = {}
    for reward in rewarded:
        said = [value for value in reward.of([row.messages for row in some], texts, ids) if value is not None]
        found[reward.name] = _rate(said) if reward.checked else _mean(said)
    return found


def _answers(model: Any, tokenizer: Any, rows: Sequence[EncodedPrompt], recipe: Recipe) -> list[list[int]]:
    import torch

    width = max(len(row.prompt_ids) for row in rows)
    end = tokenizer.eos_token_id
    ids = torch.tensor([[end] * (width - len(row.prompt_ids)) + row.prompt_ids for row in rows]).to(model.device)
    mask = torch.tensor([[0] * (width - len(row.prompt_ids)) + [1] * len(row.prompt_ids) for row in rows])
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        given = model.generate(
            input_ids=ids,
            attention_mask=mask.to(model.device),
            do_sample=False,
            max_new_tokens=recipe.max_completion_length,
            eos_token_id=end,
            pad_token_id=end,
        )
    model.train(was_training)
    answers = [answer[width:].tolist() for answer in given]
    return [answer[: answer.index(end) + 1] if end in answer else answer for answer in answers]


def _rate(said: Sequence[float]) -> dict[str, Any]:
    k, n = sum(said), len(said)
    low, high = wilson(k, n)
    return {"n": n, "k": k, "rate": k / n if n else None, "low": low, "high": high}


def _mean(said: Sequence[float]) -> dict[str, Any]:
    n = len(said)
    error = statistics.stdev(said) / n**0.5 if n > 1 else None
    return {"n": n, "mean": statistics.fmean(said) if said else None, "standard_error": error}


def refuse_without_difference(history: Sequence[dict[str, float]]) -> None:
    """Refuse a run in which nothing could be learned.

    Raises:
        TrainingError: at no step did the answers to one prompt get different rewards.
    """
    if history and all(line.get("reward_same", 0.0) == 1.0 for line in history):
        raise TrainingError(
            f"in none of {len(history)} steps did two answers to a prompt get different rewards (always "
            f"{history[-1].get('reward')}): there is nothing to learn from. Raise temperature or num_generations, "
            "begin with a model that is right sometimes, or reward in degrees"
        )
