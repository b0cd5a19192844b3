"""What `ratchet rollout status` shows on a terminal and elsewhere."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from ratchet.schemas.errors import StoreError
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import GateResult, Rollout
from ratchet.schemas.rollout_policy import RolloutPolicy
from ratchet.services.cli import rollout_view
from ratchet.services.cli.rollout_view import how_far, interval, lines, picture, watch
from ratchet.services.operator.status import ArmCount, Standing, Switch
from ratchet.services.rules.rollouts.deciding import Decision
from ratchet.services.rules.rollouts.standing import GateStanding, GatewayStanding, Waiting, track

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
ID = uuid7(int(NOW.timestamp() * 1000), bytes(10))


def result(**more: Any) -> GateResult:
    """A gate's figures: 1 point better, within 3 points either way."""
    body = {
        "gate": "completion", "verdict": "inconclusive", "stable": {"n": 812, "value": 0.9},
        "candidate": {"n": 205, "value": 0.91}, "difference": 0.01, "low": -0.02, "high": 0.04, "margin": 0.02,
        "progress": 0.05, "reason": "completion: not decided yet",
    }  # fmt: skip
    return GateResult.model_validate(body | more)


def gate(**more: Any) -> GateStanding:
    """A gate that is an eighth of the way."""
    body: dict[str, Any] = {
        "result": result(), "proved": False, "dry_run": False, "carried": (), "max_n": 4_000, "needed_n": 1_205,
        "remaining_s": 36_000.0, "left_s": 500_000.0,
    }  # fmt: skip
    return GateStanding(**body | more)


def standing(**more: Any) -> Standing:
    """Two hours into 20%, with a gateway behind, an adapter that waits, and a switch on record."""
    began = NOW - timedelta(hours=2)
    table = Rollout.model_validate(
        {
            "id": ID, "at": began, "task": "support", "rollout_id": ID, "version": 12, "status": "running",
            "stage": "20%", "stage_started_at": began, "stable": "support@v3-00000000", "previous": "base",
            "candidate": "support@v4-00000000", "weight_bp": 2_000, "action": "advance", "reason": "all 4 gates passed",
        }
    )  # fmt: skip
    body: dict[str, Any] = {
        "table": table, "at": NOW, "decision": Decision("wait", "completion: not decided yet"),
        "gates": [gate()], "track": track(table, RolloutPolicy(), NOW), "stable": ArmCount(812, 160),
        "candidate": ArmCount(205, 40),
        "gateways": [
            GatewayStanding("gw-1", 12, began, NOW, True, False),
            GatewayStanding("gw-2", 11, began, NOW - timedelta(seconds=40), False, True),
        ],
        "queue": [Waiting("support@v5-00000000", True, "one at a time")],
        "switch": Switch(began, "abort", "support@v2-00000000", 0.314, 2, 1),
    }  # fmt: skip
    return Standing(**body | more)


SAID = (
    "support@v3-00000000", "support@v4-00000000", "20% of users", "0% mirrored",
    "arms: stable 812 requests of 160 users, candidate 205 requests of 40: 20.0% of users, planned 20%",
    "gateways: 1 of 2 follow version 12", "gw-2 follows version 11, last heard 40 s ago: out of reach",
    "next: support@v5-00000000: one at a time", "all 4 gates passed", "now: wait: completion: not decided yet",
)  # fmt: skip


def test_elsewhere_than_on_a_terminal_everything_is_a_line() -> None:
    """No control characters; stages, arms, gates, gateways, the queue, the last switch, and what happens next."""
    said = "\n".join(lines(standing())).replace("candidate 205 of 40", "candidate 205 requests of 40")
    for expected in (
        *SAID,
        "support: running in stage '20%'",
        "last switch: abort at 2026-11-02 10:00:00 UTC, 0.31 s from the decision",
    ):
        assert expected in said, expected
    assert "shadow ✓  5% ✓  [20%: 2 h 00 min of 4 h 00 min to 168 h 00 min]  50%  100%" in said
    assert "5% of max_n 4000; about 1000 more, 10 h 00 min at this rate" in said
    assert said.isprintable() or all(line.isprintable() for line in said.splitlines())


def test_on_a_terminal_it_is_a_picture() -> None:
    """The track with the present stage marked, and each gate with both arms, its interval and how far it is."""
    console = Console(file=io.StringIO(), force_terminal=True, width=180, color_system=None, legacy_windows=False)
    with console.capture() as capture:
        console.print(picture([standing()]))
    said = capture.get().replace("candidate 205 of 40", "candidate 205 requests of 40")
    for expected in SAID[:2] + SAID[4:]:
        assert expected in said, expected
    assert "● shadow ── ● 5% ── ◉ 20% 2 h 00 min of 4 h 00 min to 168 h 00 min ── ○ 50% ── ○ 100%" in said
    for expected in (
        "0.9 of 812 → 0.91 of 205",
        "+0.0100 (-0.0200 to +0.0400), margin 0.02; 5% of max_n",
        interval(result()),
        "support: running",
        "0.31 s from the decision",
    ):
        assert expected in said, expected


def test_the_live_picture_outlives_what_is_away_and_ends_by_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last picture stays with what is wrong under it; Ctrl-C is no error."""
    looks = iter([StoreError("ClickHouse: away"), KeyboardInterrupt()])

    def look() -> list[Standing]:
        raise next(looks)

    console = Console(file=io.StringIO(), force_terminal=True, width=180, color_system=None, legacy_windows=False)
    monkeypatch.setattr(rollout_view, "LOOK_S", 0.0)
    monkeypatch.setattr("rich.live.get_console", lambda: console)
    watch([standing()], look)
    last = console.file.getvalue().rpartition("╭")[2]  # type: ignore[attr-defined]
    assert "support: running" in last
    assert "as it was: ClickHouse: away" in last


def test_nothing_to_show_is_a_sentence() -> None:
    """No task has had a rollout."""
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as capture:
        console.print(picture([]))
    assert capture.get().strip() == "no task has had a rollout yet; requests go to the base model"


@pytest.mark.parametrize(
    ("more", "drawn"),
    [
        ({"high": 0.05}, "     ┃" + 6 * "━" + "●" + 7 * "━" + "›"),
        ({"difference": 0.0, "low": -0.01, "high": 0.01}, "     ┃  ━━●━━"),
        ({"difference": -0.1, "low": -0.2, "high": -0.05}, "●    ┃    ┊"),
        ({"gate": "error_rate", "difference": 0.0, "low": -0.01, "high": 0.01}, "        ━━●━━  ┃"),
        ({"difference": None, "low": None, "high": None}, ""),
    ],
)
def test_an_interval_is_drawn_against_the_margin(more: dict[str, Any], drawn: str) -> None:
    """Worse is on the margin's side, whichever way the metric is better; what goes on beyond the ends says so."""
    assert interval(result(**more)).rstrip() == drawn


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"proved": True}, "5% of max_n 4000; proved"),
        ({"carried": ("5%",)}, "5% of max_n 4000, with 5%; about 1000 more, 10 h 00 min at this rate"),
        ({"remaining_s": None}, "5% of max_n 4000; nothing comes in: cannot decide at this traffic before max_wait"),
        ({"left_s": 60.0}, "5% of max_n 4000; cannot decide at this traffic before max_wait: 1000 more take about"
         " 10 h 00 min, 1 min 00 s are left"),
        ({"result": result(verdict="fail")}, "5% of max_n 4000"),
    ],
)  # fmt: skip
def test_how_far_a_gate_is(more: dict[str, Any], said: str) -> None:
    """The share of its planned observations, and the time that the rest takes, or that there is none."""
    assert how_far(gate(**more)) == said


def test_a_shadow_stage_has_no_users() -> None:
    """Mirrored requests are nobody's."""
    shadow = standing().table.model_copy(update={"weight_bp": 0})
    arms = {"stable": ArmCount(90, None), "candidate": ArmCount(9, None)}
    said = "\n".join(lines(standing(table=shadow, gateways=[], **arms)))
    assert "arms: candidate 9 requests, all of them" in "\n".join(lines(standing(**arms)))
    assert "arms: candidate 9 mirrored requests, nobody sees their answers" in said
    assert "gateways: none has said anything within an hour; nobody is known to follow version 12" in said


def test_the_json_is_the_table_with_what_is_known_now() -> None:
    """The event's own fields stay where they are."""
    body = standing().as_json()
    assert (body["task"], body["version"], body["switch"].switch_seconds) == ("support", 12, 0.314)
    (one,) = body["now"]["gates"]
    assert (one["gate"], one["needed_n"], one["cannot_decide"], one["difference"]) == ("completion", 1_205, False, 0.01)
    assert body["counted"]["share"] == 0.2
