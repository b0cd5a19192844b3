"""What a task's owner decides about its judges' calibration: how long labels count, and when anchors say drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.events import Closed


class CalibrationPolicy(Closed):
    """How long human labels vouch for a judge, and the watch over frozen anchors."""

    label_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """So many days a human label counts: tastes and tasks change."""
    anchor_hours: Annotated[float, Field(gt=0)] = 24.0
    """Between two scorings of the frozen answers."""
    anchor_effect: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Mean change of the anchors' scores (0–1) from which a judge has drifted; less is never called drift."""
    anchor_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001
    """Of each day's test: at 0.001 a steady judge is called drifted at most once in three years."""
    anchor_min_n: Annotated[int, Field(ge=2)] = 20
    """Anchors scored both then and now below which nothing is said."""
