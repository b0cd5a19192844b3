"""The demo's report: what was observed, and which parts of the loop were not."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TextIO

from ratchet.consumers.calibration import InForce
from ratchet.consumers.rules.intervals import wilson


@dataclass
class Report:
    """Filled as the demo goes; a part that was never observed stays None and keeps the loop open."""

    completion_before: dict[str, Any] | None = None
    completion_after: dict[str, Any] | None = None
    promoted: dict[str, Any] | None = None
    rolled_back: dict[str, Any] | None = None
    pairs: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    events: dict[str, int] | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def missing(self) -> list[str]:
        """Name every promise of the demo that was not observed, in a sentence each."""
        checks = [
            (self.completion_before is not None, "completion before the loop was not measured"),
            (self.completion_after is not None, "completion after the loop was not measured"),
            (self._improved(), "completion after is not above completion before (intervals overlap)"),
            (bool(self.pairs and self.pairs["built"]), "no preference pair was built"),
            (bool(self.judge and self.judge["n"]), "the judge scored nothing that a user had also judged"),
            (self.promoted is not None, "the good adapter was not promoted"),
            (self._all_stages(), "the promotion did not pass through shadow, 5%, 20%, 50% and 100%"),
            (self.rolled_back is not None, "the bad adapter was not rolled back"),
            (bool(self.events and self.events["emitted"]), "no event was emitted"),
            (bool(self.events) and self.events_lost() == 0, "events were lost"),
            (bool(self.events and self.events["duplicates"] == 0), "events were counted twice"),
        ]
        return [sentence for seen, sentence in checks if not seen]

    def events_lost(self) -> int | None:
        """How many acknowledged events the views do not give."""
        return self.events["lost"] if self.events else None

    def _improved(self) -> bool:
        before, after = self.completion_before, self.completion_after
        return bool(before and after and after["low"] > before["high"])

    def _all_stages(self) -> bool:
        stages = [stage["stage"] for stage in self.promoted["stages"]] if self.promoted else []
        return stages == ["shadow", "5%", "20%", "50%", "100%"]

    def as_json(self) -> dict[str, Any]:
        """The report with its documented keys."""
        return {
            "closed": not self.missing(),
            "completion_before": self.completion_before,
            "completion_after": self.completion_after,
            "promoted": self.promoted,
            "rolled_back": self.rolled_back,
            "pairs": self.pairs,
            "judge": self.judge,
            "events": self.events,
            "seconds": round(self.seconds, 1),
            "missing": self.missing(),
            "notes": self.notes,
        }


def completion(n: int, k: int) -> dict[str, Any]:
    """A completion rate with its 95% Wilson interval: ``{n, k, rate, low, high}``."""
    low, high = wilson(k, n)
    return {"n": n, "k": k, "rate": round(k / n, 4), "low": round(low, 4), "high": round(high, 4)}


_ENDS = ("advance", "promote", "abort")


def stages_of(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What ended each stage: the gates' verdicts and counts, and how long the stage took.

    Args:
        log: rows of the audit log of one candidate in order; a decision's gates judged the stage before it, and what
            they proved once stays so.
    """
    stages = []
    passed: set[str] = set()
    for before, after in itertools.pairwise(row for row in log if row["action"] in ("start", *_ENDS)):
        gates = after["gates"]
        told = [row for row in log if before["at"] < row["at"] <= after["at"]]
        passed |= {gate["gate"] for row in told for gate in row["gates"] if gate["verdict"] == "pass"}
        stages.append(
            {
                "stage": before["stage"],
                "n_stable": max((gate["stable"]["n"] for gate in gates), default=0),
                "n_candidate": max((gate["candidate"]["n"] for gate in gates), default=0),
                "verdicts": {
                    gate["gate"]: "pass"
                    if gate["gate"] in passed and gate["verdict"] == "inconclusive"
                    else gate["verdict"]
                    for gate in gates
                },
                "seconds": round((after["at"] - before["at"]).total_seconds(), 1),
            }
        )
        if before["stage"] == "shadow":
            passed.clear()  # nothing of a stage without users is carried
    return stages


def judge(found: InForce) -> dict[str, Any]:
    """How far the judge can be trusted: ``{n, agreement, low, high, judge, standing}``."""
    calibration, standing = found.calibration, str(found.standing)
    if calibration is None or calibration.agreement is None:
        return {"n": 0, "agreement": None, "low": 0.0, "high": 1.0, "judge": found.judge, "standing": standing}
    return {
        "n": calibration.n,
        "agreement": calibration.agreement.value,
        "low": round(calibration.agreement.low, 4),
        "high": round(calibration.agreement.high, 4),
        "judge": found.judge,
        "standing": standing,
    }


def switch_seconds(decided_at: datetime, last_at: datetime) -> float:
    """Seconds from the decision to abort to the last request routed to the bad adapter (0: none came after)."""
    return max(0.0, round((last_at - decided_at).total_seconds(), 3))


def table(made: Report, out: TextIO) -> None:
    """Print what was observed, one row a promise."""
    from rich.console import Console
    from rich.table import Table

    def rate(value: dict[str, Any] | None) -> str:
        if value is None:
            return "not measured"
        return f"{value['rate']:.1%}  [{value['low']:.1%}, {value['high']:.1%}]  {value['k']} of {value['n']}"

    grid = Table(show_header=False, title="Ratchet: one turn of the loop", title_justify="left")
    grid.add_row("held-out completion before", rate(made.completion_before))
    grid.add_row("held-out completion after", rate(made.completion_after))
    if made.pairs:
        dropped = ", ".join(f"{reason} {n}" for reason, n in sorted(made.pairs["dropped"].items())) or "none"
        grid.add_row("preference pairs", f"{made.pairs['built']} built; dropped: {dropped}")
    if made.judge and made.judge["n"]:
        judge = made.judge
        grid.add_row(
            "judge against users",
            f"{judge['agreement']:.0%} agreement, n = {judge['n']} ({judge['judge']}: {judge['standing']})",
        )
    if made.promoted:
        grid.add_row("promoted", made.promoted["adapter"])
        for stage in made.promoted["stages"]:
            verdicts = ", ".join(f"{gate} {verdict}" for gate, verdict in stage["verdicts"].items())
            counts = f"n {stage['n_stable']}/{stage['n_candidate']}"
            grid.add_row(f"   {stage['stage']}", f"{verdicts}; {counts}; {stage['seconds']:.0f} s")
    if made.rolled_back:
        back = made.rolled_back
        grid.add_row("rolled back", back["adapter"])
        grid.add_row(
            "   by its gates",
            f"in stage {back['stage']} after {back['requests']} requests; switched in {back['switch_seconds']:.2f} s",
        )
    if made.events:
        events = made.events
        grid.add_row(
            "events",
            f"{events['emitted']} acknowledged, {events['stored']} stored, "
            f"{events['duplicates']} counted twice, {events['lost']} lost",
        )
    grid.add_row("loop closed", f"{'yes' if not made.missing() else 'NO'}, in {made.seconds:.0f} s")
    Console(file=out, width=110).print(grid)
