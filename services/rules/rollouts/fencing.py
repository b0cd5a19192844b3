"""Which routing table of a task is in force, whoever wrote to the topic in whatever order. Pure.

Every reader applies one rule to the records in their order: a table takes effect where it lies if its version is
above the one in force. So of two tables with one version the first wins everywhere, and whoever wrote the other one
reads that it lost. Compaction keeps a task's last record, which may be the loser: the controller that leads then
publishes the winner again. A controller writes nothing more once it reads the epoch of a later one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.rollouts.tables import confirm


@dataclass(frozen=True)
class Log:
    """What was read of one task's records.

    ``held`` is the table in force, ``last`` the last record, ``epoch`` the highest one seen, and ``rival`` the highest
    version of a record that did not take effect.
    """

    held: Rollout | None = None
    last: Rollout | None = None
    rival: int = 0
    epoch: int = 0


def takes_effect(table: Rollout, held: Rollout | None) -> bool:
    """Whether a record takes effect for a reader that holds ``held``."""
    return held is None or table.version > held.version


def read(log: Log, table: Rollout) -> Log:
    """The log after one more record, which may repeat an earlier one."""
    epoch = max(log.epoch, table.epoch)
    if takes_effect(table, log.held):
        return Log(table, table, log.rival, epoch)
    repeated = log.held is not None and table.id == log.held.id
    return Log(log.held, table, log.rival if repeated else max(log.rival, table.version), epoch)


def succeeded(log: Log, epoch: int) -> bool:
    """Whether a later controller than that of this epoch has written: the earlier one writes nothing more."""
    return log.epoch > epoch


def mended(log: Log, now: datetime, event_id: str) -> Rollout | None:
    """What to publish so that readers of the compacted topic come to hold what all others do; None: nothing.

    Behind an older record (a topic that came back empty and was seeded from ClickHouse) that is the same table again.
    Where somebody could take another record for it, it is the same table under a version above both.
    """
    if log.held is None or log.last is None:
        return None
    if log.rival >= log.held.version:
        why = f"version {log.rival} was written by two controllers; version {log.held.version} came first and stays"
        return confirm(log.held, now, event_id, why).model_copy(update={"version": log.rival + 1})
    return log.held if log.last.id != log.held.id else None
