"""Hourly rollups: what ClickHouse's materialized views noted as touched is counted anew and written down.

The views ``hourly``, ``hourly_terms``, ``hourly_scores`` and ``hourly_feedback`` are exact without this: they count
an hour live until it is rolled up. Rolling up makes them fast, and outlasts the rows themselves.
Any number of processes may do it; the same hour twice is the same row twice.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timedelta

from ratchet.infra import clock
from ratchet.infra.clickhouse.client import Store
from ratchet.schemas.errors import StoreError

log = logging.getLogger("ratchet.rollup")
SETTLED_S = 60.0
"""An hour is rolled up this long after its last insert began, by when that is visible on every replica."""
LIVE_S = 10.0
"""Readers count a rolled hour live for this long, so that none sees the note without the rollup."""
EVERY_S = 30.0
LOOK_BACK = timedelta(days=1)
"""How far back the first look for answers that came after their feedback goes."""
OVERLAP = timedelta(minutes=2)
"""Looks overlap: the server's clock is not ours, and inserts take their time."""
MOST_HOURS = 200
"""Hours of one pass: their list travels in a URL."""
TERMS_HOURS = 24
"""Hours whose terms are counted at a time: in memory there are then all of their words."""


def roll(store: Store, settled_s: float = SETTLED_S, live_s: float = LIVE_S) -> int:
    """Roll up every hour that is quiet; returns how many that were.

    Args:
        store: migrated.
        settled_s: how long no row may have come into an hour.
        live_s: for how long readers go on to count it live.

    Raises:
        StoreError: ClickHouse is away; the hours that are left stay exact, and are rolled up next time.
    """
    rolled = 0
    while some := _roll_some(store, settled_s, live_s):
        rolled += some
    return rolled


def _roll_some(store: Store, settled_s: float, live_s: float) -> int:
    rolled = 0
    for row in store.query("hours_to_roll", settled_ms=int(settled_s * 1000), most=MOST_HOURS):
        of = {"task": row["task"], "hours": row["hours"], "upto": row["upto"]}
        store.execute(f"roll_{row['source']}", **of)
        if row["source"] == "inferences":
            for first in range(0, len(row["hours"]), TERMS_HOURS):
                store.execute("roll_terms", **of | {"hours": row["hours"][first : first + TERMS_HOURS]})
        store.execute("hours_rolled", source=row["source"], live_ms=int(live_s * 1000), **of)
        rolled += len(row["hours"])
    return rolled


def note_late(store: Store, since: datetime) -> None:
    """Have the hours of feedback rolled up anew whose answers were stored after it, since an instant.

    Args:
        store: migrated.
        since: by the server's clock, of the last look; a little earlier does no harm.

    Raises:
        StoreError: ClickHouse is away; look again from the same instant.
    """
    store.execute("note_late_answers", since_ms=int(since.timestamp() * 1000))


def keep_rolled(store: Store, stop: threading.Event, every_s: float = EVERY_S) -> None:
    """Roll up what is quiet, again and again, until ``stop`` is set; ClickHouse away is waited for and said once.

    Args:
        store: migrated.
        stop: looked at between passes of at most `MOST_HOURS`.
        every_s: seconds until the next look once nothing is left.
    """
    said, looked = "", clock.now() - LOOK_BACK
    while not stop.wait(every_s):
        try:
            now = clock.now()
            note_late(store, looked)
            looked = now - OVERLAP
            while not stop.is_set() and _roll_some(store, SETTLED_S, LIVE_S):
                pass
            said = ""
        except StoreError as error:
            if str(error) != said:
                said = str(error)
                log.warning("hours are counted live until they can be rolled up: %s", said)
