"""Rows as token ids, exactly as serving renders them.

The prompt is what vLLM's chat endpoint makes of the same messages: the tokenizer's own chat
template with the generation prompt. The completion is the answer's tokens and then the
end-of-turn token, so the model learns to stop. (The template's newline after the end of turn
is left out: serving stops before it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.training.job import ExampleRow, Message, PreferenceRow, Row


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of one row; both completions end in the end-of-turn token unless cut short."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]


@dataclass(frozen=True, slots=True)
class EncodedExample:
    """Token ids of one row without an opposite; the completion ends in the end-of-turn token."""

    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool = True


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """A prompt that is answered in training: its messages, and their token ids as serving renders them."""

    messages: list[dict[str, str]]
    prompt_ids: list[int]


@dataclass(frozen=True, slots=True)
class Packed:
    """Several rows in one sequence; none sees another."""

    rows: tuple[EncodedExample, ...]


def encode_pair(tokenizer: Any, row: PreferenceRow) -> EncodedPair:
    """Turn one row into token ids.

    Raises:
        DatasetError: the tokenizer has no chat template or no end-of-sequence token.
    """
    prompt_ids = _prompt(tokenizer, row)
    return EncodedPair(prompt_ids, _completion(tokenizer, row.chosen[0]), _completion(tokenizer, row.rejected[0]))


def encode_example(tokenizer: Any, row: ExampleRow) -> EncodedExample:
    """Turn one row into token ids; raises as `encode_pair`."""
    return EncodedExample(_prompt(tokenizer, row), _completion(tokenizer, row.completion[0]), row.label)


def _prompt(tokenizer: Any, row: Row) -> list[int]:
    if not tokenizer.chat_template or tokenizer.eos_token_id is None:
        raise DatasetError("the base model's tokenizer has no chat template or no end-of-sequence token")
    prompt = [message.model_dump() for message in row.prompt]
    return list(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False))


def _completion(tokenizer: Any, answer: Message) -> list[int]:
    return [*tokenizer(answer.content, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def encode_pairs(
    tokenizer: Any, rows: Iterable[PreferenceRow], max_length: int
) -> tuple[list[EncodedPair], list[PreferenceRow]]:
    """Turn rows into token ids, and leave out those whose better answer does not fit.

    A better answer cut short would teach the model to stop in mid-sentence or never, so such
    a row is dropped; a worse one may lose its end.

    Args:
        tokenizer: the base model's.
        rows: the dataset.
        max_length: the most tokens of prompt and completion together.

    Returns:
        ``(encoded, kept)``, index by index.
    """
    encoded: list[EncodedPair] = []
    kept: list[PreferenceRow] = []
    for row in rows:
        pair = encode_pair(tokenizer, row)
        room = max_length - len(pair.prompt_ids)
        if len(pair.chosen_ids) > room:
            continue
        encoded.append(EncodedPair(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids[:room]))
        kept.append(row)
    return encoded, kept


def encode_examples(
    tokenizer: Any, rows: Iterable[ExampleRow], max_length: int
) -> tuple[list[EncodedExample], list[ExampleRow]]:
    """Turn rows into token ids, and leave out those that do not fit whole; arguments and value as `encode_pairs`."""
    found = [(encode_example(tokenizer, row), row) for row in rows]
    fitting = [(one, row) for one, row in found if len(one.prompt_ids) + len(one.completion_ids) <= max_length]
    return [one for one, _ in fitting], [row for _, row in fitting]


def encode_prompts(tokenizer: Any, rows: Iterable[Row], max_length: int) -> tuple[list[EncodedPrompt], list[Row]]:
    """Turn prompts into token ids, and leave out those of more than ``max_length`` tokens; value as `encode_pairs`."""
    found = [(EncodedPrompt([one.model_dump() for one in row.prompt], _prompt(tokenizer, row)), row) for row in rows]
    fitting = [(one, row) for one, row in found if len(one.prompt_ids) <= max_length]
    return [one for one, _ in fitting], [row for _, row in fitting]


def batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Group indices into batches of like lengths, so that little is computed on padding."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    return [order[start : start + size] for start in range(0, len(order), size)]
