"""What `ratchet rollout status` shows: a picture on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ratchet.schemas.errors import StoreError
from ratchet.schemas.rollout_policy import LOWER_IS_BETTER
from ratchet.services.cli.training_view import duration

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from ratchet.schemas.rollout_events import Arm, GateResult, Rollout
    from ratchet.services.operator.status import Standing, Switch
    from ratchet.services.rules.rollouts.standing import GateStanding, GatewayStanding, Step

UNDER_WAY = ("running", "paused")
LOOK_S = 2.0
BAR = 21
COLOURS = {"pass": "green", "fail": "red", "error": "red", "inconclusive": "yellow"}
VERDICTS = {"pass": "pass", "fail": "fail", "error": "error", "inconclusive": "undecided"}
STATUS_COLOURS = {"running": "cyan", "paused": "yellow", "promoted": "green", "aborted": "red"}


def table_lines(table: Rollout) -> list[str]:
    """A routing table in words: what is served, to whom, and who decided that."""
    previous = f", previous {table.previous}" if table.previous else ""
    lines = [
        f"{table.task}: {table.status}" + (f" in stage {table.stage!r}" if table.stage else ""),
        f"  stable {table.stable}{previous}",
    ]
    if table.candidate and table.status in UNDER_WAY:
        lines.append(f"  candidate {table.candidate}: {shares(table)}, since {at(table.stage_started_at)}")
        lines += [f"  compared: {name}: {share / 100:g}% of the copies" for name, share in table.arms.items()]
    lines.append(f"  last: {table.action} by {table.actor} at {at(table.at)}: {table.reason}")
    return lines


def lines(standing: Standing) -> list[str]:
    """Everything, a line each."""
    said = table_lines(standing.table)
    last = said.pop()
    if standing.track and standing.table.status in UNDER_WAY:
        said.append("  stages: " + "  ".join(map(_step, standing.track)))
    if arms := arms_line(standing):
        said.append(f"  {arms}")
    for gate in standing.gates:
        said.append(f"  {gate.result.verdict:<12} {gate.result.reason}")
        said.append(f"  {'':<12} {difference(gate.result)}{how_far(gate)}")
    if not standing.gates:
        said += [f"  {result.verdict:<12} {result.reason}" for result in standing.table.gates]
    said += [f"  {line}" for line in gateway_lines(standing)]
    said += [f"  {'next' if one.next else 'waits'}: {one.adapter}: {one.why}" for one in standing.queue]
    if standing.switch is not None:
        said.append(f"  {switch_line(standing.switch)}")
    said.append(last)
    if standing.decision is not None:
        said.append(f"  now: {standing.decision.action}: {standing.decision.reason}")
    return said


def picture(standings: Sequence[Standing]) -> RenderableType:
    """Each task's rollout as a panel; a sentence where there is none."""
    from rich.console import Group
    from rich.text import Text

    if not standings:
        return Text("no task has had a rollout yet; requests go to the base model")
    return Group(*map(_panel, standings))


def watch(first: Sequence[Standing], look: Callable[[], Sequence[Standing]]) -> None:
    """Show the picture and look again every `LOOK_S` seconds until Ctrl-C; what is away is said under the last one.

    A look that takes longer is followed by a pause as long, so that watching costs ClickHouse at most half its time.

    Args:
        first: what to begin with.
        look: what there is now.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    last, took_s = first, 0.0
    with contextlib.suppress(KeyboardInterrupt), Live(picture(first), auto_refresh=False) as view:
        while True:
            time.sleep(max(LOOK_S, took_s))
            trouble, began = "", time.monotonic()
            try:
                last = look()
            except StoreError as error:
                trouble = f"as it was: {error}"
            took_s = time.monotonic() - began
            view.update(Group(picture(last), Text(trouble, style="red")), refresh=True)


def _panel(standing: Standing) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    table = standing.table
    parts: list[RenderableType] = []
    if standing.track and table.status in UNDER_WAY:
        parts.append(_track(standing.track))
    parts.append(Text(f"stable     {table.stable}" + (f"   previous {table.previous}" if table.previous else "")))
    if table.candidate and table.status in UNDER_WAY:
        parts.append(Text(f"candidate  {table.candidate}   {shares(table)}"))
        parts += [Text(f"compared   {name}   {share / 100:g}% of the copies") for name, share in table.arms.items()]
    if arms := arms_line(standing):
        parts.append(Text(arms))
    if standing.gates:
        parts.append(_gates(standing.gates))
    parts += [Text(line) for line in gateway_lines(standing)]
    parts += [Text(f"{'next' if one.next else 'waits'}: {one.adapter}: {one.why}") for one in standing.queue]
    if standing.switch is not None:
        parts.append(Text(switch_line(standing.switch)))
    parts.append(Text(f"{table.action} by {table.actor} at {at(table.at)}: {table.reason}", style="dim"))
    if standing.decision is not None:
        parts.append(Text(f"now: {standing.decision.action}: {standing.decision.reason}", style="bold"))
    colour = STATUS_COLOURS.get(table.status, "white")
    return Panel(Group(*parts), title=f"{table.task}: {table.status}", title_align="left", border_style=colour)


def _track(steps: Sequence[Step]) -> Text:
    from rich.text import Text

    text = Text()
    for number, step in enumerate(steps):
        text.append(" ── " if number else "")
        style = {"past": "green", "present": "bold cyan", "ahead": "dim"}[step.place]
        text.append({"past": "● ", "present": "◉ ", "ahead": "○ "}[step.place] + step.name, style=style)
        if step.elapsed_s is not None:
            text.append(f" {_time(step)}", style=style)
    return text


def _gates(gates: Sequence[GateStanding]) -> Text:
    """Two lines a gate: its verdict with both arms and the difference drawn, then how far it is; 80 columns do."""
    from rich.text import Text

    names = [one.result.gate + (" (dry run)" if one.dry_run else "") for one in gates]
    arms = [f"{_arm(one.result.stable)} → {_arm(one.result.candidate)}" for one in gates]
    text = Text()
    for name, both, one in zip(names, arms, gates, strict=True):
        verdict = "proved" if one.proved else VERDICTS[one.result.verdict]
        text.append(("\n" if text else "") + name.ljust(max(map(len, names)) + 1))
        text.append(verdict.ljust(10), style="green" if one.proved else COLOURS[one.result.verdict])
        text.append(f"{both.ljust(max(map(len, arms)))} {interval(one.result)}\n")
        text.append(f"  {difference(one.result)}{how_far(one)}", style="dim")
    return text


def difference(result: GateResult) -> str:
    """A gate's difference with its interval, beside the margin; '' where there is none yet."""
    if result.difference is None:
        return ""
    within = "" if result.low is None or result.high is None else f" ({result.low:+.4f} to {result.high:+.4f})"
    return f"{result.difference:+.4f}{within}, margin {result.margin:.4g}; "


def interval(result: GateResult) -> str:
    """A gate's difference with its interval, drawn from twice the margin on one side to twice on the other.

    ``┊`` is no difference, ``┃`` the margin, ``━`` the interval with ``●`` at the difference; ``‹`` and ``›`` say
    that it goes on. '' where there is no interval yet.
    """
    if result.difference is None or result.low is None or result.high is None or not result.margin:
        return ""
    edge = result.margin if result.gate in LOWER_IS_BETTER else -result.margin

    def place(value: float) -> int:
        inside = (value / result.margin + 2) / 4
        return round(min(max(inside, 0.0), 1.0) * (BAR - 1))

    cells = [" "] * BAR
    cells[place(0.0)] = "┊"
    for index in range(place(result.low), place(result.high) + 1):
        cells[index] = "━"
    if result.low < -2 * result.margin:
        cells[0] = "‹"
    if result.high > 2 * result.margin:
        cells[-1] = "›"
    cells[place(edge)] = "┃"
    cells[place(result.difference)] = "●"
    return "".join(cells)


def how_far(gate: GateStanding) -> str:
    """How much of the planned observations is there, and how long a decision takes at the present rate."""
    carried = f", with {', '.join(gate.carried)}" if gate.carried else ""
    share = f"{gate.result.progress or 0:.0%} of max_n {gate.max_n}{carried}"
    if gate.decided:
        return f"{share}; {'proved' if gate.proved else 'passes'}"
    if gate.result.verdict in ("fail", "error"):
        return share
    if gate.remaining_s is None:
        return f"{share}; nothing comes in: cannot decide at this traffic before max_wait"
    more = max(gate.needed_n - gate.result.candidate.n, 0)
    if gate.cannot_decide:
        return (
            f"{share}; cannot decide at this traffic before max_wait: {more} more take about"
            f" {duration(gate.remaining_s)}, {duration(gate.left_s)} are left"
        )
    return f"{share}; about {more} more, {duration(gate.remaining_s)} at this rate"


def arms_line(standing: Standing) -> str:
    """What each arm got in this stage, and how users were split."""
    stable, candidate = standing.stable, standing.candidate
    if stable is None or candidate is None:
        return ""
    if stable.users is None or candidate.users is None:
        seen = (
            "mirrored requests, nobody sees their answers" if standing.table.weight_bp == 0 else "requests, all of them"
        )
        return f"arms: candidate {candidate.requests} {seen}"
    split = "" if standing.share is None else f": {standing.share:.1%} of users, planned {planned(standing.table)}"
    return (
        f"arms: stable {stable.requests} requests of {stable.users} users, candidate {candidate.requests} of"
        f" {candidate.users}{split}"
    )


def gateway_lines(standing: Standing) -> list[str]:
    """Who follows the table in force, and who does not."""
    version = standing.table.version
    if not standing.gateways:
        return [f"gateways: none has said anything within an hour; nobody is known to follow version {version}"]
    following = [one for one in standing.gateways if one.acknowledged]
    said = f"gateways: {len(following)} of {len(standing.gateways)} follow version {version}"
    return [said, *(_behind(one, standing) for one in standing.gateways if not one.acknowledged or one.silent)]


def _behind(one: GatewayStanding, standing: Standing) -> str:
    follows = f"follows version {one.version}" if one.version else "has no table of this task"
    seen = duration(max((standing.at - one.seen_at).total_seconds(), 0.0))
    return f"  {one.gateway} {follows}, last heard {seen} ago" + (": out of reach" if one.silent else "")


def switch_line(switch: Switch) -> str:
    """How fast users last left an adapter."""
    return (
        f"last switch: {switch.action} at {at(switch.decided_at)}, {switch.switch_seconds:.2f} s from the decision to"
        f" the last request to {switch.adapter}; {switch.followed} of {switch.gateways} gateways follow"
    )


def shares(table: Rollout) -> str:
    """Who gets the candidate."""
    return f"{table.weight_bp / 100:g}% of users, {table.mirror_bp / 100:g}% mirrored"


def planned(table: Rollout) -> str:
    """The candidate's planned share of users."""
    return f"{table.weight_bp / 100:g}%"


def at(instant: object) -> str:
    """An instant for people, in UTC."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _arm(arm: Arm) -> str:
    return f"{arm.value:.4g} of {arm.n}" if arm.value is not None else f"– of {arm.n}"


def _step(step: Step) -> str:
    if step.place == "present":
        return f"[{step.name}: {_time(step)}]"
    return f"{step.name} ✓" if step.place == "past" else step.name


def _time(step: Step) -> str:
    least, most = duration(step.min_s), duration(step.max_s)
    return f"{duration(step.elapsed_s or 0.0)} of {least} to {most}"
