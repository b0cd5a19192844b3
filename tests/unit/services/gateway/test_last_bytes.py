"""An answer is logged before its last bytes are sent: what a client saw whole is never lost, and never cancelled."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from ratchet.schemas.events import Inference

HELLO: list[Any] = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [3, 20_000])
def test_who_has_the_whole_answer_is_logged_already(world: Any, stream: bool, size: int) -> None:
    """The event is there when the answer is, small or larger than any buffer on its way: nothing is waited for."""
    world.peer.words = ("word ",) * 3 if size == 3 else ("x" * size,) * 10
    with httpx.Client(base_url=world.url) as client:
        for count in range(1, 6):
            answer = client.post("/v1/chat/completions", json={"model": "bare", "messages": HELLO, "stream": stream})
            assert answer.status_code == 200
            told = [event for event in world.publisher.events if isinstance(event, Inference)]
            assert [event.status for event in told] == ["ok"] * count
            assert told[-1].id == answer.headers["x-ratchet-inference-id"]
            assert told[-1].response.content == "".join(world.peer.words)


def test_a_client_that_leaves_at_done_has_its_answer(world: Any) -> None:
    """The official client closes its connection at [DONE]: that is `ok`, however late the model server ends."""
    world.peer.faults["tiny"] = "lingers"
    with openai.OpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        for _ in client.chat.completions.create(model="bare", messages=HELLO, stream=True):
            pass
        assert [event.status for event in world.publisher.events] == ["ok"]
        # the end of the stream is read all the same: the connection serves the next request
        assert client.chat.completions.create(model="bare", messages=HELLO).choices
    assert [event.status for event in world.events(Inference, 2)] == ["ok", "ok"]
