"""What is away or refuses, said when it begins or changes and when it is over, not at every look."""

from __future__ import annotations

import logging

log = logging.getLogger("ratchet.controller")


class Troubles:
    """Troubles under way, each by what it is about."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def say(self, about: str, message: str) -> None:
        """Log a trouble unless it was said last of the same thing."""
        if self._said.get(about) != message:
            self._said[about] = message
            log.warning("%s", message)

    def clear(self, about: str) -> None:
        """Log that it is over, where there was one."""
        if self._said.pop(about, None):
            log.warning("%s: fine again", about)
