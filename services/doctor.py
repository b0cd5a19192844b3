"""`ratchet doctor`: look at every part that the settings name; what is wrong and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

from ratchet.infra.settings import Settings
from ratchet.schemas.errors import RatchetError
from ratchet.services import wiring

LOW_DISK_GB = 5.0


def examine(settings: Settings) -> list[dict[str, Any]]:
    """Look at each part once.

    Returns:
        One ``{part, ok, says}`` a part; ``says`` names what to do where ``ok`` is false.
    """
    parts: list[tuple[str, Callable[[Settings], str]]] = [
        ("tasks", _tasks),
        ("disk", _disk),
        ("kafka", _kafka),
        ("clickhouse", _clickhouse),
        ("vllm", _vllm),
        ("gateway", _gateway),
        ("alerts", _alerts),
    ]
    findings = []
    for part, look in parts:
        try:
            findings.append({"part": part, "ok": True, "says": look(settings)})
        except RatchetError as error:
            findings.append({"part": part, "ok": False, "says": str(error)})
    return findings


def _tasks(settings: Settings) -> str:
    if not settings.tasks:
        raise RatchetError("no task is declared; write [tasks.<name>] in ratchet.toml")
    for name, policy in settings.tasks.items():
        for field, file in policy.evaluation.files.items():
            if not (settings.config_dir / file).is_file():
                raise RatchetError(f"tasks.{name}.evaluation.{field}: no file {settings.config_dir / file}")
    return ", ".join(settings.tasks)


def _disk(settings: Settings) -> str:
    folder = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 1e9
    if free < LOW_DISK_GB:
        raise RatchetError(f"{free:.1f} GB free at {settings.home}; make room (at least {LOW_DISK_GB:.0f} GB)")
    return f"{free:.0f} GB free at {settings.home}"


def _kafka(settings: Settings) -> str:
    from ratchet.infra.kafka.admin import missing_topics, wait_for_broker

    wait_for_broker(settings.kafka, 3.0)
    if missing := missing_topics(settings.kafka):
        raise RatchetError(f"{settings.kafka} lacks {', '.join(missing)}; run `ratchet migrate`")
    return f"{settings.kafka}, every topic is there"


def _clickhouse(settings: Settings) -> str:
    from ratchet.infra.clickhouse import retention
    from ratchet.infra.clickhouse.migrate import pending
    from ratchet.services.rebuild import half_exchanged

    store = wiring.store(settings)
    try:
        if waiting := pending(store):
            raise RatchetError(f"migrations are not applied: {', '.join(waiting)}; run `ratchet migrate`")
        if changed := retention.pending(store, wiring.retention(settings), wiring.cluster(settings)):
            raise RatchetError(f"retention is not as set: {'; '.join(changed)}; run `ratchet migrate`")
        if half_exchanged(store):
            raise RatchetError(
                "a rebuild was killed while its tables took their place: run `ratchet rebuild`, "
                "which first brings back what was stored meanwhile"
            )
    finally:
        store.close()
    return "answers, every migration is applied, retention is as set"


def _vllm(settings: Settings) -> str:
    from ratchet.infra.models.vllm import address

    served = {address(url): names for url, names in wiring.vllm(settings).models().items()}
    for url, names in served.items():
        if settings.base_model not in names:
            raise RatchetError(f"{url} does not serve {settings.base_model!r} (it serves {', '.join(sorted(names))})")
    return "; ".join(f"{url} serves {', '.join(sorted(names))}" for url, names in served.items())


def _gateway(settings: Settings) -> str:
    if not wiring.gateway_ready(settings):
        raise RatchetError(
            f"nothing ready on {settings.gateway_host}:{settings.gateway_port}; run `ratchet gateway` "
            "or `ratchet up` (its /readyz names what it waits for)"
        )
    return f"{settings.gateway}/v1 is ready"


def _alerts(settings: Settings) -> str:
    from ratchet.infra.sinks.outbox import read_status

    if not settings.sinks:
        raise RatchetError("no sink is declared, so alerts reach nobody; write [sinks.<name>] in ratchet.toml")
    found = [one for one in read_status(wiring.outbox_path(settings)) if one.name in settings.sinks]
    if troubled := [one for one in found if one.problem]:
        says = "; ".join(
            f"sinks.{one.name}: {one.refused} refused for good, {one.waiting} waiting, last: {one.problem}"
            for one in troubled
        )
        raise RatchetError(f"{says}; mend it, then run `ratchet alerts test`")
    return "; ".join(f"{name}: {sink.kind}, {sink.shown}" for name, sink in settings.sinks.items())
