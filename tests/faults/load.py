"""The fault tests' users: real `openai` clients, feedback and events, and a journal of what they were told.

Run as ``python load.py URL JOURNAL PADDING``, ended by SIGTERM. Each line of the journal is a word and what it
is about, written when a client knows it:

- ``inference ID``: an answer was read to its end (a stream: to [DONE]); ``feedback ID``, ``event ID``: a 202;
- ``comment ID``: feedback on the one conversation, whose comments are numbered in the order they were sent;
- ``cut ID``: a stream broke off after its first word; ``failed WHAT``: no answer at all;
- ``refused WHAT CODE``: an answer other than 200 and 202 (events: how many of the request were not taken).

Whatever asks to be sent again (no answer, 503) is sent again with the same ids, as a client should.
``PADDING`` is the size of an event's answer in bytes.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai

from ratchet.infra.clock import new_id, now

TASK = "support"
CONVERSATION = "diary"
PAUSE_S = 0.02
AGAIN_S = 0.2
TIMEOUT = httpx.Timeout(30.0)
SIZES = ("words 6 pause 0.01 size 8", "words 6 pause 0.01 size 8", "words 4 pause 0.01 size 30000")
"""The questions: mostly short answers, and some that are larger than any buffer on their way."""


class Users:
    """Everybody who talks to the gateway, each in a thread, until `stop`."""

    def __init__(self, url: str, journal: Path, padding: int) -> None:
        self.url, self.padding = url, padding
        self.stop = threading.Event()
        self._journal = journal.open("a", buffering=1)
        self._lock = threading.Lock()
        self._answered: list[str] = []

    def note(self, what: str, *about: object) -> None:
        """Write a line of the journal."""
        with self._lock:
            self._journal.write(" ".join(map(str, (what, *about))) + "\n")

    def chat(self, stream: bool) -> None:
        """Ask again and again."""
        number = 0
        with openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=TIMEOUT) as client:
            while not self.stop.wait(PAUSE_S):
                number += 1
                question: Any = [{"role": "user", "content": SIZES[number % len(SIZES)]}]
                ask: Callable[..., Any] = client.chat.completions.with_raw_response.create
                id, begun = "", False
                try:
                    raw = ask(model=TASK, messages=question, stream=stream)
                    id = raw.headers["x-ratchet-inference-id"]
                    if stream:
                        for _ in raw.parse():
                            begun = True
                    self.note("inference", id)
                    self._answered = [*self._answered[-50:], id]
                except openai.APIStatusError as error:
                    self.note("refused", "chat", error.status_code)
                except (openai.APIError, httpx.TransportError):
                    self.note(*(("cut", id) if begun else ("failed", "chat")))
                    self.stop.wait(AGAIN_S)

    def feedback(self) -> None:
        """Vote on an answer, or write the next comment of the diary, and go on only when it is taken."""
        number = 0
        with httpx.Client(base_url=self.url, timeout=TIMEOUT) as client:
            while not self.stop.wait(PAUSE_S / 2):
                number += 1
                body: dict[str, Any] = {"id": new_id(), "task": TASK}
                if number % 2 and self._answered:
                    body |= {"inference_id": self._answered[number % len(self._answered)], "kind": "thumb"}
                    body["value"] = True
                else:
                    body |= {"conversation_id": CONVERSATION, "kind": "comment", "value": f"{number}"}
                if self._again(client, "feedback", "/v1/feedback", body) is not None:
                    self.note("comment" if body["kind"] == "comment" else "feedback", body["id"])

    def events(self) -> None:
        """Send five events of an app without the gateway, those that were not taken again."""
        with httpx.Client(base_url=self.url, timeout=TIMEOUT) as client:
            while not self.stop.wait(PAUSE_S * 2):
                batch = [self._event() for _ in range(5)]
                if self._again(client, "events", "/v1/events", batch) is not None:
                    for event in batch:
                        self.note("event", event["id"])

    def _again(self, client: httpx.Client, what: str, path: str, body: object) -> httpx.Response | None:
        """Post until it is taken; None if the end comes first."""
        while not self.stop.is_set():
            try:
                response = client.post(path, json=body)
            except httpx.TransportError:
                self.note("failed", what)
                self.stop.wait(AGAIN_S)
                continue
            if response.status_code == 202:
                return response
            self.note("refused", what, response.status_code)
            if response.status_code != 503:
                raise RuntimeError(f"{path}: {response.status_code} {response.text}")
            self.stop.wait(AGAIN_S)
        return None

    def _event(self) -> dict[str, Any]:
        return {
            "schema": "inference.v1", "id": new_id(), "at": now().isoformat(), "task": TASK, "adapter": "base",
            "stage": "stable", "base_model": "tiny", "status": "ok", "latency_ms": 5, "stream": False,
            "request": {"messages": [{"role": "user", "content": "Hi"}]}, "prompt_tokens": 1, "completion_tokens": 1,
            "response": {"content": "x" * self.padding, "finish_reason": "stop"},
        }  # fmt: skip


def main() -> None:
    """Run everybody until SIGTERM."""
    users = Users(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    signal.signal(signal.SIGTERM, lambda *_: users.stop.set())
    jobs = [*[lambda: users.chat(True)] * 3, *[lambda: users.chat(False)] * 2, users.feedback, users.events]
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
