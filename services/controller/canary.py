"""A canary request: each replica answers the same question under an adapter's name, as it was answered at first."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ratchet.infra.models.answer import Answer
from ratchet.infra.models.vllm import address
from ratchet.schemas.errors import ModelError
from ratchet.schemas.ids import ADAPTER_NAME
from ratchet.services.controller.residents import Replicas
from ratchet.services.rules.rollouts.canary import difference

log = logging.getLogger("ratchet.controller")
TOKENS = 8
WARM = timedelta(seconds=60)
"""A replica's slot goes to whoever was asked last: a standby that is asked once a minute keeps one."""


class Records:
    """What each adapter answered when it was first confirmed, a file each; without a folder in memory alone."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, Answer] = {}

    def get(self, name: str) -> Answer | None:
        """The recorded answer, if there is one.

        Raises:
            ModelError: the record cannot be read.
        """
        if name not in self._held and self._folder is not None and (path := self._path(name)).exists():
            try:
                self._held[name] = Answer.of_json(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise ModelError(f"{path}: no recorded answer, remove it to record anew: {error}") from error
        return self._held.get(name)

    def put(self, name: str, answer: Answer) -> None:
        """Record an answer.

        Raises:
            ModelError: it cannot be written.
        """
        if self._folder is not None:
            path = self._path(name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                written = path.with_suffix(".new")
                written.write_text(json.dumps(answer.as_json()), encoding="utf-8")
                written.replace(path)
            except OSError as error:
                raise ModelError(f"{path}: the answer that {name} is held to cannot be recorded: {error}") from error
        self._held[name] = answer

    def _path(self, name: str) -> Path:
        assert self._folder is not None, "asked only where there is one"
        return self._folder / f"{name}.json"


class Canary:
    """Which replicas have shown that they answer as an adapter does.

    Args:
        replicas: the model servers.
        records: what each adapter answered at first.
        system_prompt: of a task, by its name.
    """

    def __init__(self, replicas: Replicas, records: Records, system_prompt: Callable[[str], str | None]) -> None:
        self._replicas, self._records, self._system_prompt = replicas, records, system_prompt
        self._asked: dict[tuple[str, str], datetime] = {}

    def forget(self, name: str, urls: Collection[str]) -> None:
        """These replicas loaded the adapter anew: what they showed before says nothing."""
        for url in urls:
            self._asked.pop((name, url), None)

    def check(self, name: str, urls: Collection[str], now: datetime) -> None:
        """See that each replica answers, and as it should: a new one by comparison, the others once a minute at all.

        Raises:
            ModelError: names the replica and how its answer differs, or that it gave none.
        """
        messages = self._messages(name)
        for url in urls:
            last = self._asked.get((name, url))
            if last is not None and abs(now - last) >= WARM:
                del self._asked[name, url]
                self._replicas.ask(name, messages, url, 1)
                self._asked[name, url] = now
        expected, whose = self._records.get(name), "as recorded when it was first confirmed"
        found: dict[str, Answer] = {}
        for url in urls:
            if (name, url) not in self._asked:
                self._replicas.ask(name, messages, url, 1)  # warms the slot up; the next one is compared
                found[url] = self._replicas.ask(name, messages, url, TOKENS)
        if not found:
            return
        first = next(iter(found))
        reference = expected or found[first]
        whose = whose if expected else f"as at {address(first)}"
        differing = {url: why for url, answer in found.items() if (why := difference(reference, answer))}
        if differing:
            said = "; ".join(f"at {address(url)}: {why}" for url, why in differing.items())
            raise ModelError(f"{name} does not answer {whose}: {said}")
        if expected is None:
            self._records.put(name, reference)
        for url in found:
            self._asked[name, url] = now

    def _messages(self, name: str) -> list[dict[str, Any]]:
        named = ADAPTER_NAME.match(name)
        system = self._system_prompt(named["task"]) if named else None
        asked = [{"role": "user", "content": "Hello! Please introduce yourself."}]
        return [{"role": "system", "content": system}, *asked] if system else asked
