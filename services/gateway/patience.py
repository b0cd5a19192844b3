"""An end to the server's patience: uvicorn waits for ever for a request that does not come to its end.

Its one timer is for idle connections between requests. A client that connects and says nothing,
or sends a header a minute, or goes on dribbling a body that was refused already, would hold its
connection (and a file descriptor of ours) as long as it likes.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def patient(limit_s: float) -> type[HttpToolsProtocol]:
    """Make uvicorn's protocol with a limit.

    Args:
        limit_s: the most seconds from the connection or a request's first byte to that request's
            last; then the connection is closed. Longer than the gateway waits for a body, so
            that a client whose headers came is told why (408).
    """

    class Patient(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._stop()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop()
            super().connection_lost(exc)

        def _wait(self) -> None:
            self._stop()
            self._timer = self.loop.call_later(limit_s, self._give_up)

        def _stop(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _give_up(self) -> None:
            if self.pipeline:
                self._wait()  # a request that came early waits for the answer before it: our doing
            elif not self.transport.is_closing():
                self.transport.close()

    return Patient
