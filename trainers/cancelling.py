"""A job that a person may end at any time: `ratchet jobs cancel` writes an event, whoever trains looks for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from ratchet.schemas.errors import StoreError, TrainingCancelled
from ratchet.schemas.events import Training

if TYPE_CHECKING:
    from ratchet.infra.clickhouse.client import Store

Result = TypeVar("Result")
log = logging.getLogger("ratchet.trainer")
LOOK_S = 2.0
"""Seconds between two looks."""


async def unless_cancelled(store: Store, request: Training, work: Coroutine[Any, Any, Result]) -> Result:
    """Do a job's work, and end it as soon as somebody cancelled the job.

    Args:
        store: ClickHouse, where `ratchet.training` is read.
        request: the job.
        work: what is cancelled, and waited for.

    Raises:
        TrainingCancelled: the job was cancelled, before it began or in the middle of it.
        StoreError: ClickHouse is away at the beginning. In the middle of the work it is asked again.
    """
    try:
        await _refuse(store, request)
    except BaseException:
        work.close()
        raise
    doing, looking = asyncio.create_task(work), asyncio.create_task(_look(store, request))
    try:
        await asyncio.wait({doing, looking}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            await looking
        return await doing
    finally:
        for task in (looking, doing):
            task.cancel()
        await asyncio.gather(looking, doing, return_exceptions=True)


async def _refuse(store: Store, request: Training) -> None:
    rows = await asyncio.to_thread(store.query, "training_cancelled", task=request.task, job_id=request.job_id)
    if rows:
        raise TrainingCancelled(str(rows[0]["reason"]))


async def _look(store: Store, request: Training) -> None:
    """Come back only by raising."""
    away = False
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            await _refuse(store, request)
            away = False
        except StoreError as error:
            if not away:
                log.warning("job %s cannot be cancelled at the moment: %s", request.job_id, error)
            away = True
