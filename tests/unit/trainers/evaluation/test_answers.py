"""Text metrics of held-out answers, held to the libraries' own corpus figures; and how models are asked."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from ratchet.trainers.evaluation.answers import observe, reference_of, refusals
from ratchet.trainers.evaluation.asking import Asked, Reply, ask
from ratchet.trainers.rules.measures import figure

ANSWERS = ["the cat sat on the mat", "a bird", "", "Заказ отправлен сегодня утром"]
REFERENCES = ["the cat sat on a mat", "a small bird sings", "nothing", "Заказ был отправлен сегодня утром"]
ROWS: list[dict[str, Any]] = [{"messages": [], "reference": one} for one in REFERENCES]
REPLIES = [Reply(text, 100.0 * (n + 1), 10 * n) for n, text in enumerate(ANSWERS)]


def test_bleu_of_rows_is_the_corpus_score() -> None:
    """What the rows add up to is sacrebleu's own corpus BLEU."""
    found = figure("bleu", observe("bleu", ROWS, REPLIES), seed=0)
    assert found.value == pytest.approx(BLEU().corpus_score(ANSWERS, [REFERENCES]).score)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.value <= found.high


def test_rouge_is_the_librarys_on_ascii_and_knows_other_scripts() -> None:
    """ROUGE-L's F1 agrees with rouge-score's own on English, and is not 0 for Russian."""
    values = observe("rouge_l", ROWS, REPLIES).values
    own = RougeScorer(["rougeL"]).score(REFERENCES[0], ANSWERS[0])["rougeL"].fmeasure
    assert values["000000"] == (pytest.approx(own),)
    assert values["000003"][0] > 0.8
    assert values["000002"] == (0.0,)


def test_each_other_metric_counts_what_it_says() -> None:
    """Exact text, valid JSON, required fields, latency and tokens a second; a row without a reference is in none."""
    rows = [{"messages": [], "expect": "yes"}, {"messages": [], "expect": {"a": 1}}, {"messages": []}]
    replies = [Reply(" yes\n", 50.0, 5), Reply('{"a": 1, "b": ""}', 100.0, None), Reply("[1]", 200.0, 20)]
    assert reference_of(rows[1]) is None
    assert observe("exact_match", rows, replies).values == {"000000": (1.0,)}
    assert [one[0] for one in observe("json_valid", rows, replies).values.values()] == [0, 1, 1]
    assert [one[0] for one in observe("required_fields", rows, replies, ["a"]).values.values()] == [0, 1, 0]
    assert [one[0] for one in observe("required_fields", rows, replies, ["b"]).values.values()] == [0, 0, 0]
    assert figure("p95", observe("latency_p95", rows, replies), seed=0).value == pytest.approx(190.0)
    speed = observe("throughput", rows, replies)
    assert speed.missing == {"000001"}
    assert figure("ratio", speed, seed=0).value == pytest.approx(25 / 0.25)


def test_refusals_are_told_by_their_phrases() -> None:
    """The built-in phrases and the task's own."""
    replies = [Reply("I can't help with that.", 1, 1), Reply("Gern.", 1, 1), Reply("Das darf ich nicht sagen", 1, 1)]
    assert [one[0] for one in refusals(replies, []).values.values()] == [1, 0, 0]
    assert [one[0] for one in refusals(replies, ["darf ich nicht"]).values.values()] == [1, 0, 1]


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30))
def test_a_figure_lies_in_its_interval(values: list[float]) -> None:
    """Whatever the verdicts are, the rate is within its interval, and the interval within 0 to 1."""
    replies = [Reply("{}" if one else "no", 1.0, 1) for one in values]
    found = figure("rate", observe("json_valid", [{"messages": []}] * len(values), replies), seed=0)
    assert found.low is not None
    assert found.high is not None
    assert found.value == pytest.approx(sum(values) / len(values))
    assert -1e-9 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1 + 1e-9


def test_models_take_turns_and_each_is_first_as_often() -> None:
    """Three models are asked prompt by prompt, the first one changing; replies come back by model and prompt."""
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append((body["messages"][-1]["content"], body["model"]))
        message = {"role": "assistant", "content": f"{body['model']} {body['messages'][-1]['content']}"}
        reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
        reply |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        reply |= {"usage": {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}}
        return httpx.Response(200, json=reply)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = AsyncOpenAI(base_url="http://replica/v1", api_key="none", http_client=http)
    rows = [{"messages": [{"role": "user", "content": str(n)}]} for n in range(3)]
    found = asyncio.run(ask([Asked(client, name) for name in "abc"], rows, concurrency=1))
    assert [[reply.text for reply in replies] for replies in found] == [[f"{m} {n}" for n in range(3)] for m in "abc"]
    assert [model for _, model in asked] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert {(reply.tokens, reply.latency_ms > 0) for replies in found for reply in replies} == {(7, True)}
