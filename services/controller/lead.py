"""Whether this controller is the one that acts."""

from __future__ import annotations

import time
from typing import Protocol

from ratchet.infra.kafka.leadership import Leadership
from ratchet.infra.kafka.tail import Tail
from ratchet.schemas.errors import BrokerError
from ratchet.schemas.topics import ROLLOUT

GROUP = "controller"


class Lead(Protocol):
    """What a controller asks before it acts."""

    @property
    def leads(self) -> bool:
        """Whether it leads, as far as it has heard."""

    @property
    def term(self) -> int:
        """How often it was given the lead."""

    def confirm(self, timeout_s: float) -> None:
        """See that it leads now and has read all routing tables that there are.

        Raises:
            NotLeading: another one leads.
            BrokerError: Kafka is away or does not answer in time.
        """

    def follow(self, tail: Tail) -> None:
        """Stand for the lead from now on; ``tail`` reads the routing tables, and has caught up."""

    def close(self) -> None:
        """Leave, so that the next one leads at once."""


class Alone:
    """The only controller there is: for tests and one-process tools, without Kafka."""

    leads = True
    term = 1

    def confirm(self, timeout_s: float) -> None:
        """It always leads, and reads what it writes."""

    def follow(self, tail: Tail) -> None:
        """See `Lead`; it led before."""

    def close(self) -> None:
        """See `Lead`; nobody follows it."""


class KafkaLead:
    """The lead by Kafka's word."""

    def __init__(self, bootstrap: str) -> None:
        """Prepare; ``bootstrap`` is ``host:port[,host:port…]``."""
        self._leadership = Leadership(bootstrap, ROLLOUT, GROUP)
        self._bootstrap = bootstrap
        self._tail: Tail | None = None

    @property
    def leads(self) -> bool:
        """See `Lead`."""
        return self._leadership.leads

    @property
    def term(self) -> int:
        """See `Lead`."""
        return self._leadership.term

    def follow(self, tail: Tail) -> None:
        """See `Lead`."""
        self._tail = tail
        self._leadership.start()

    def confirm(self, timeout_s: float) -> None:
        """See `Lead`."""
        assert self._tail is not None, "leads only after `follow`"
        deadline = time.monotonic() + timeout_s
        end = self._leadership.confirm(timeout_s)
        if not self._tail.read_to(end, max(0.0, deadline - time.monotonic())):
            raise BrokerError(f"the routing tables at {self._bootstrap} were not read to their end in {timeout_s:g} s")

    def close(self) -> None:
        """See `Lead`."""
        self._leadership.close()
