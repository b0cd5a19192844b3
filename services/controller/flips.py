"""Flips on their way: which gateways follow a table, how long the switch took, and who still routes by an old one."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta

from ratchet.infra.kafka.publisher import Publisher
from ratchet.schemas.events import Event
from ratchet.schemas.ids import derived_id, unix_ms
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.services.rules.rollouts.acknowledging import Flip, flip, waiting_for

log = logging.getLogger("ratchet.controller")
LATE = timedelta(seconds=10)
"""So long after an abort a gateway that has not acknowledged it is an alert."""
RUNBOOK = "docs/rollout-operations.md"


class Flips:
    """What gateways acknowledge.

    ``words`` has the newest of each gateway; written by a tail's thread, read by the controller (one dict
    assignment each: atomic).

    Args:
        publisher: takes alerts.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.words: dict[str, Gateway] = {}
        self._publisher = publisher
        self._watched: dict[str, Rollout] = {}
        self._alerted: dict[str, str] = {}

    def receive(self, event: Event) -> None:
        """Take what a gateway says of itself; of each the newest counts, in whatever order they come."""
        if isinstance(event, Gateway):
            known = self.words.get(event.gateway)
            if known is None or event.at > known.at:
                self.words[event.gateway] = event

    def waiting_for(self, table: Rollout, now: datetime) -> tuple[str, ...]:
        """The gateways that have not acknowledged a table, for which an advance waits."""
        return waiting_for(dict(self.words), table, now)

    def look(self, tables: Iterable[Rollout], now: datetime) -> None:
        """Follow each task's last flip to its end: say how long it took, or who is late."""
        words = dict(self.words)
        for table in tables:
            bad = away_from(table)
            if bad is None or self._watched.get(table.task) == table:
                continue
            stands = flip(words, table, bad, now)
            self._say_late(table, bad, stands, now)
            if stands.over and not stands.silent:
                self._watched[table.task] = table
                log.info(
                    "%s: %s of %s: last request after %.3f s; %d gateways had the table after %.3f s",
                    *(table.task, table.action, bad, stands.seconds, stands.gateways, stands.acknowledged),
                )

    def _say_late(self, table: Rollout, bad: str, stands: Flip, now: datetime) -> None:
        late = (*stands.live, *stands.silent) if now - table.at > LATE else ()
        said = ", ".join(late)
        if table.action == "abort" and said and self._alerted.get(table.id) != said:
            self._alerted[table.id] = said
            self._publisher.publish(_alert(table, bad, stands, now, "open"))
            log.warning("%s: %s is aborted, and still routed to by %s", table.task, bad, said)
        elif not said and self._alerted.pop(table.id, ""):
            self._publisher.publish(_alert(table, bad, stands, now, "resolved"))
            log.warning("%s: every gateway has acknowledged the abort of %s", table.task, bad)


def away_from(table: Rollout) -> str | None:
    """The adapter that a table sends nobody to any more; None where it takes nothing away."""
    if table.action == "abort":
        return table.candidate
    return table.previous if table.action in ("undo", "promote") else None


def _alert(table: Rollout, bad: str, stands: Flip, now: datetime, state: str) -> Alert:
    late = ", ".join((*stands.live, *stands.silent))
    return Alert.model_validate(
        {
            "id": derived_id(unix_ms(table.id), "routing", table.task, str(table.version)),
            "at": now,
            "task": table.task,
            "adapter": bad,
            "kind": "routing",
            "key": f"{table.task}/routing/{table.version}",
            "severity": "critical",
            "state": state,
            "since": table.at,
            "title": f"{bad} is aborted, and a gateway may still route to it"
            if state == "open"
            else f"every gateway has acknowledged the abort of {bad}",
            "summary": f"not acknowledged: {late}; {stands.gateways} gateways in all" if late else "",
            "action": "take the gateways that are named out of the load balancer until they reach Kafka again",
            "runbook": RUNBOOK,
            "evidence": {"version": table.version, "live": list(stands.live), "silent": list(stands.silent)},
            "source": "controller",
        }
    )
