"""What rows are measured by that is no pure rule: the tokenizer, a task's own functions, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ratchet.consumers.rules.clusters import assigned, centroids
from ratchet.consumers.rules.results import read_returned
from ratchet.consumers.topics import NEEDS, TOPICS, embedded, embedding_model
from ratchet.infra.functions import Functions
from ratchet.schemas.checks import Answer
from ratchet.schemas.dataset_policy import DatasetPolicy, Filter
from ratchet.schemas.errors import DatasetError, FunctionFailed, SettingsError
from ratchet.schemas.events import Request
from ratchet.trainers.rules.dataset import Candidate
from ratchet.trainers.rules.selecting import Limits

MOST_UNJUDGED = 0.05
"""The share of rows from which on a function that cannot judge them stops the build."""


@contextmanager
def limits(policy: DatasetPolicy, task: str, folder: Path, tokenizer: Path | None, max_tokens: int) -> Iterator[Limits]:
    """Everything that a policy measures rows by; the functions' process ends with the block.

    Args:
        policy: the task's.
        task: its name, as its functions see it.
        folder: of ``ratchet.toml``; modules beside it can be named.
        tokenizer: the base model's folder; None: lengths in tokens are not measured.
        max_tokens: the recipe's, where the policy names none.

    Raises:
        DatasetError: a function that cannot be loaded, a tokenizer without chat template, topics without their extra.
    """
    by_topic = any(one.by == "topic" for one in policy.balance)
    if by_topic and embedding_model() is None:
        raise DatasetError(f"balance by topic: {NEEDS}")
    try:
        functions = Functions([one.function for one in policy.filters], folder) if policy.filters else None
    except SettingsError as error:
        raise DatasetError(f"tasks.{task}.dataset.filters: {error}") from None
    try:
        filters = {
            f"filter {one.function}": _judge(functions, one, task) for one in policy.filters if functions is not None
        }
        tokens = token_counter(tokenizer) if tokenizer is not None else None
        yield Limits(tokens, policy.max_tokens or max_tokens, filters, _topics if by_topic else None)
    finally:
        if functions is not None:
            functions.close()


def token_counter(folder: Path) -> Callable[[Candidate], int]:
    """Count a row's tokens as training sees them: the chat template, the answer to be raised, the end of turn.

    Raises:
        DatasetError: the tokenizer has no chat template.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    if not tokenizer.chat_template:
        raise DatasetError(f"{folder}: the base model's tokenizer has no chat template")

    def count(one: Candidate) -> int:
        prompt = tokenizer.apply_chat_template(one.row["prompt"], add_generation_prompt=True, return_dict=False)
        return len(prompt) + len(tokenizer(one.answers[0], add_special_tokens=False)["input_ids"]) + 1

    return count


def _judge(functions: Functions, wanted: Filter, task: str) -> Callable[[Sequence[Candidate]], list[Candidate]]:
    def goes(rows: Sequence[Candidate]) -> list[Candidate]:
        gone, unjudged, why = [], 0, ""
        for one in rows:
            answer = Answer(text=one.answers[0], request=Request(messages=one.row["prompt"]), task=task)
            try:
                said = read_returned(functions.call(wanted.function, answer, wanted.timeout_s), wanted.threshold)
            except FunctionFailed as error:
                unjudged, why = unjudged + 1, str(error)
                gone.append(one)
                continue
            if said.score is None:
                unjudged, why = unjudged + 1, said.reason
            if said.verdict != "pass":
                gone.append(one)
        if unjudged > MOST_UNJUDGED * len(rows):
            raise DatasetError(
                f"filter {wanted.function}: cannot judge {unjudged} of {len(rows)} rows, the last because it {why}"
            )
        return gone

    return goes


def _topics(texts: Sequence[str]) -> Sequence[Hashable]:
    vectors = embedded(embedding_model(), list(texts))
    found: list[int] = assigned(vectors, centroids(vectors, TOPICS, seed=0)).tolist()
    return found
