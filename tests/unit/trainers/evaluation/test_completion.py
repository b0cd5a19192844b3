"""Held-out completion: asked, checked, bounded."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from ratchet.schemas.checks import LanguageCheck, ReferenceCheck, RequiredFieldsCheck
from ratchet.schemas.errors import DatasetError, ModelError
from ratchet.schemas.policies import TaskPolicy
from ratchet.trainers.evaluation.completion import completion, completion_check, judge
from ratchet.trainers.evaluation.held_out import read_evaluation

TICKET = RequiredFieldsCheck(name="ticket", fields=["order"])
ROWS: list[dict[str, Any]] = [
    {"id": f"h{n}", "messages": [{"role": "user", "content": f"order {n}"}], "expect": {"order": str(n)}}
    for n in range(10)
]


def _client(status: int = 200, seen: list[dict[str, Any]] | None = None) -> AsyncOpenAI:
    """The real client over a transport that echoes the order number, wrongly from 7 on."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if seen is not None:
            seen.append(asked)
        number = asked["messages"][-1]["content"].split()[1]
        content = json.dumps({"order": number if int(number) < 7 else "?"})
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        return httpx.Response(status, json=body)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return AsyncOpenAI(base_url="http://replica/v1", api_key="none", http_client=http, max_retries=0)


async def test_rate_counts_checked_and_expected_answers() -> None:
    """An answer counts when it passes the check and has the expected values; the interval is Wilson's."""
    seen: list[dict[str, Any]] = []
    measured = await completion(_client(seen=seen), "support@v1-00000000", ROWS, TICKET, system_prompt="Be brief.")
    assert (measured.n, measured.k, measured.rate) == (10, 7, 0.7)
    assert (round(measured.low, 4), round(measured.high, 4)) == (0.3968, 0.8922)
    assert [one["id"] for one in measured.examples] == ["h7", "h8", "h9"]
    assert all(asked["temperature"] == 0 for asked in seen)
    assert all(asked["messages"][0] == {"role": "system", "content": "Be brief."} for asked in seen)


async def test_server_error_is_not_a_wrong_answer() -> None:
    """A prompt that was not answered ends the evaluation; it is never counted as failed."""
    with pytest.raises(ModelError, match=r"support@v1-00000000"):
        await completion(_client(status=500), "support@v1-00000000", ROWS, TICKET)


def test_expected_values_are_compared_inside_the_json() -> None:
    """More keys than expected are fine for `expect`; prose, lists and other values are not."""
    rows = [{"id": n, "messages": [], "expect": {"order": "7"}} for n in range(3)]
    measured = judge(rows, ['{"order": "7", "more": 1}', '{"order": "8"}', "order 7"], TICKET)
    assert measured.k == 1
    assert [one["reason"].split(":")[0] for one in measured.examples] == ["order", "not JSON"]


def test_task_without_a_check_cannot_be_evaluated() -> None:
    """Outcome events do not exist for held-out prompts."""
    with pytest.raises(DatasetError, match="'outcome'"):
        completion_check("support", TaskPolicy())


@pytest.mark.parametrize(
    ("text", "named"), [("{", "line 1: not JSON"), ('{"id": 1}', "line 1: no 'messages'"), ("", "no evaluation")]
)
def test_bad_evaluation_file_names_the_line(tmp_path: Path, text: str, named: str) -> None:
    """A frozen file that is not as it should be is refused with line and reason."""
    file = tmp_path / "heldout.jsonl"
    file.write_text(text)
    with pytest.raises(DatasetError, match=named):
        read_evaluation(file)


def test_an_abstention_is_no_completion_and_no_failure() -> None:
    """What the check cannot say of is in neither count."""
    english = LanguageCheck(name="english", languages=["en"])
    rows = [{"id": n, "messages": []} for n in range(4)]
    answers = ["Your order is on its way to you.", "Votre commande arrivera lundi prochain.", "OK.", "12345"]
    measured = judge(rows, answers, english)
    assert (measured.n, measured.k, measured.unjudged, measured.rate) == (2, 1, 2, 0.5)
    assert "abstained: 3 characters" in measured.examples[1]["reason"]
    nothing = judge(rows[:1], ["OK."], english)
    assert (nothing.n, nothing.rate, nothing.low, nothing.high) == (0, None, 0.0, 1.0)


def test_references_and_functions_of_held_out_prompts(tmp_path: Path) -> None:
    """A reference is found under the task's system prompt too; a prompt without one is not judged."""
    (tmp_path / "refs.jsonl").write_text('{"messages": [{"role": "user", "content": "q"}], "expect": "42"}')
    rows = [{"id": n, "messages": [{"role": "user", "content": asked}]} for n, asked in enumerate("qqr")]
    check = ReferenceCheck(name="known", file="refs.jsonl")
    measured = judge(rows, ["42.", "43", "42"], check, folder=tmp_path, system_prompt="Be brief.")
    assert (measured.n, measured.k, measured.unjudged) == (2, 1, 1)
    with pytest.raises(DatasetError, match=r"check 'known': .*refs\.jsonl"):
        completion_check("support", TaskPolicy(checks=[check], completion="known"), tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match="held-out prompt 0: tags"):
        judge([{"id": 0, "messages": [], "tags": 3}], ["x"], TICKET)
