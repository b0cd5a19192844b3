"""Which adapters' files may go; pure. What can still be served, or rolled back to, never does."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ratchet.schemas.events import Adapter
from ratchet.schemas.ids import ADAPTER_NAME
from ratchet.schemas.rollout_events import Operator, Rollout


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an adapter's files stay, and why."""

    name: str
    keep: bool
    reason: str


def judge(
    adapters: Iterable[Adapter],
    tables: Collection[Rollout],
    asked: Collection[Operator],
    promoted: Mapping[str, Sequence[str]],
    needed: Collection[str],
    keep: int,
) -> list[Verdict]:
    """Decide on every adapter.

    Args:
        adapters: the registry's manifests.
        tables: every routing table that is known to be in force, the same task's more than once where its sources
            may disagree: a table that is behind keeps an adapter too many, never one too few.
        asked: what people asked of the controller.
        promoted: by task: the adapters that were stable, the latest first.
        needed: adapters that something else needs, such as a pool that serves one as its base model.
        keep: of each task, how many of ``promoted`` stay beside those that a table names.
    """
    of_task: dict[str, list[Rollout]] = {}
    for table in tables:
        of_task.setdefault(table.task, []).append(table)
    recent = {name for names in promoted.values() for name in list(dict.fromkeys(names))[:keep]}
    wanted = {one.adapter for one in asked if one.adapter and not _answered(one, of_task.get(one.task, []))}

    def verdict(adapter: Adapter) -> Verdict:
        mine, name = of_task.get(adapter.task, []), adapter.name
        if adapter.status == "retired":
            return Verdict(name, False, adapter.reason or "retired")
        for table in mine:
            for place in ("stable", "previous", "candidate"):
                if getattr(table, place) == name:
                    return Verdict(name, True, f"{place} of {adapter.task}")
            if name in table.arms:
                return Verdict(name, True, f"one of the candidates of {adapter.task}")
        if name in needed:
            return Verdict(name, True, "a pool's base model")
        if name in wanted:
            return Verdict(name, True, "its rollout was asked for")
        if name in recent:
            return Verdict(name, True, f"one of the last {keep} that were stable")
        if adapter.status == "registered" and not adapter.answers:
            return Verdict(name, True, "a reward model, which no table names")
        if adapter.status == "registered" and number(name) > max(map(_highest, mine), default=0):
            return Verdict(name, True, "waits for its rollout")
        why = (
            adapter.reason or "rejected" if adapter.status == "rejected" else "neither served nor to be rolled back to"
        )
        return Verdict(name, False, why)

    return [verdict(adapter) for adapter in adapters]


def number(name: str) -> int:
    """N of ``task@vN-sha8``; 0 for the base model."""
    match = ADAPTER_NAME.match(name)
    return int(match["number"]) if match else 0


def _highest(table: Rollout) -> int:
    return max(number(name) for name in (table.stable, table.candidate, table.previous) if name)


def _answered(asked: Operator, tables: Iterable[Rollout]) -> bool:
    return any(table.operator_seen == asked.id for table in tables)
