"""What answers to held-out prompts are measured by, without a judge: each metric's number of each prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ratchet.consumers.rules.json_checks import required_fields
from ratchet.consumers.rules.phrases import refusal_phrase
from ratchet.trainers.evaluation.asking import Reply
from ratchet.trainers.rules.measures import Observed, Value

REFERENCED = ("exact_match", "rouge_l", "bleu")
"""Metrics that compare with a row's reference answer."""
_WORDS = re.compile(r"[^\W_]+")


def reference_of(row: Mapping[str, Any]) -> str | None:
    """A row's reference answer: its ``reference``, or its ``expect`` where that is a text."""
    found = row.get("reference", row.get("expect"))
    return found if isinstance(found, str) else None


def observe(
    metric: str, rows: Sequence[Mapping[str, Any]], replies: Sequence[Reply], fields: Sequence[str] = ()
) -> Observed:
    """Measure one metric on a model's answers; prompts are named by their place in the file.

    Args:
        metric: one of exact_match, rouge_l, bleu, json_valid, required_fields, latency_p50, latency_p95, throughput.
        rows: the prompts.
        replies: an answer for each.
        fields: of ``required_fields``.
    """
    values: dict[str, Value] = {}
    missing = set()
    score = _scorer(metric)
    for number, (row, reply) in enumerate(zip(rows, replies, strict=True)):
        name = f"{number:06}"
        if metric in REFERENCED:
            reference = reference_of(row)
            if reference is not None:
                values[name] = score(reply.text, reference)
        elif metric == "throughput":
            # an answer that the server did not count has no rate
            if reply.tokens is None:
                missing.add(name)
            else:
                values[name] = (float(reply.tokens), reply.latency_ms / 1000)
        elif metric in ("latency_p50", "latency_p95"):
            values[name] = (reply.latency_ms,)
        elif metric == "json_valid":
            values[name] = (float(is_json(reply.text)),)
        else:
            values[name] = (float(required_fields(fields, reply.text).verdict == "pass"),)
    return Observed(values, frozenset(missing))


def refusals(replies: Sequence[Reply], phrases: Sequence[str]) -> Observed:
    """Which answers refuse: a phrase of refusing stands near their start.

    Args:
        replies: the answers.
        phrases: the task's own, beside the built-in ones.
    """
    found = (refusal_phrase(reply.text, phrases) is not None for reply in replies)
    return Observed({f"{number:06}": (float(one),) for number, one in enumerate(found)})


def is_json(text: str) -> bool:
    """Whether a text is JSON, alone."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True


def _scorer(metric: str) -> Any:
    """A function of answer and reference that gives the metric's numbers."""
    if metric == "rouge_l":
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
        return lambda text, reference: (float(scorer.score(reference, text)["rougeL"].fmeasure),)
    if metric == "bleu":
        from sacrebleu.metrics.bleu import BLEU

        bleu = BLEU(effective_order=True)  # the counts of a sentence are those that a corpus adds up

        def counts(text: str, reference: str) -> Value:
            found = bleu.sentence_score(text, [reference])
            return tuple(float(one) for one in (*found.counts, *found.totals, found.sys_len, found.ref_len))

        return counts
    return lambda text, reference: (float(text.strip() == reference.strip()),)


class _Tokenizer:
    """Words in lower case, of any script: rouge-score's own keeps ASCII letters and digits alone."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())
