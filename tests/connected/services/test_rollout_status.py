"""Where a canary stands, out of ClickHouse alone: nothing else runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Gateway, Rollout
from ratchet.services.cli.rollout_view import lines
from ratchet.services.operator.status import Standing, standings

pytestmark = pytest.mark.connected
POLICY = TaskPolicy.model_validate(
    {
        "completion": "ticket",
        "checks": [{"name": "ticket", "kind": "length", "min": 1}],
        "rollout": {
            "gates": [{"metric": "completion", "margin": 0.05, "max_n": 4_000}],
            "stages": [
                {"name": "shadow", "mirror_bp": 1_000},
                {"name": "20%", "weight_bp": 2_000, "min_duration_s": 3_600, "max_wait_s": 36_000},
                {"name": "100%", "weight_bp": 10_000},
            ],
        },
    }
)


def canary(traffic: Any, **more: Any) -> Rollout:
    """An hour into 20%, with two gateways of which one lags, and a third adapter that waits."""
    first, second, third = (traffic.adapter(number, traffic.start + timedelta(minutes=number)) for number in (1, 2, 3))
    id = traffic.new_id()
    body = {
        "id": id, "at": traffic.start, "task": traffic.task, "rollout_id": id, "salt": id, "version": 4,
        "status": "running", "stage": "20%", "stage_started_at": traffic.start, "stable": first.name,
        "candidate": second.name, "previous": "base", "weight_bp": 2_000, "action": "advance", "reason": "all passed",
    }  # fmt: skip
    table = Rollout.model_validate(body | more)
    said = traffic.start + timedelta(minutes=60)
    gateways = [
        Gateway(id=traffic.new_id(), at=said - timedelta(seconds=ago), gateway=f"{traffic.task}-{name}:8080",
                tables={traffic.task: version}, since={traffic.task: traffic.start})
        for name, version, ago in (("a", 4, 3), ("b", 3, 4), ("gone", 3, 3_500))
    ]  # fmt: skip
    # another task's own edge, which follows no table of this one
    stranger = Gateway(id=traffic.new_id(), at=said, gateway="edge:billing:here:nginx", tables={"billing": 1})
    traffic.write(first, second, third, table, *gateways, stranger)
    return table


def look(traffic: Any) -> Standing:
    """The status an hour after the stage began."""
    now = traffic.start + timedelta(minutes=60)
    (standing,) = standings(traffic.store, {traffic.task: POLICY}, now, task=traffic.task)
    return standing


def test_a_canary_an_hour_into_its_stage(traffic: Any) -> None:
    """Arms as counted, the gate with the time that it still needs, who holds the advance up, and who is next."""
    table = canary(traffic)
    at = traffic.start + timedelta(minutes=1)
    traffic.calls(table, "stable", at, 400, completed=360)
    traffic.calls(table, "canary", at, 100, completed=90)
    standing = look(traffic)
    assert standing.stable is not None
    assert standing.candidate is not None
    assert (standing.stable.requests, standing.candidate.requests, standing.share) == (400, 100, 0.2)
    (gate,) = standing.gates
    assert (gate.result.stable.n, gate.result.candidate.n, gate.proved, gate.carried) == (400, 100, False, ())
    assert 100 < gate.needed_n < 4_000
    assert gate.remaining_s == pytest.approx((gate.needed_n - 100) * 36)
    assert gate.left_s == 32_400
    assert gate.cannot_decide is (gate.remaining_s > 32_400)
    mine = [one for one in standing.gateways if one.gateway.startswith(traffic.task)]
    assert [(one.version, one.acknowledged, one.silent) for one in mine] == [
        (4, True, False), (3, False, False), (3, False, True),
    ]  # fmt: skip
    assert standing.decision is not None
    assert standing.decision.action == "wait"
    assert f"{traffic.task}-b:8080" in standing.decision.reason.partition("not acknowledged yet by ")[2]
    (waiting,) = standing.queue
    assert waiting.adapter.startswith(f"{traffic.task}@v3-")
    assert waiting.next
    said = "\n".join(lines(standing))
    silent = f"{traffic.task}-gone:8080 follows version 3, last heard 58 min 20 s ago: out of reach"
    for expected in ("[20%: 1 h 00 min of 1 h 00 min to 10 h 00 min]", "20.0% of users, planned 20%", silent):
        assert expected in said, said


def test_without_traffic_a_gate_cannot_decide(traffic: Any) -> None:
    """Nothing comes in, so no rate says when; the status says that in words."""
    canary(traffic)
    standing = look(traffic)
    assert [(gate.remaining_s, gate.cannot_decide) for gate in standing.gates] == [(None, True)]
    assert "nothing comes in: cannot decide at this traffic before max_wait" in "\n".join(lines(standing))


def test_what_a_person_holds_is_shown_without_gates(traffic: Any) -> None:
    """A pause by a person: the split and the gateways are there, and nothing is decided."""
    canary(traffic, status="paused", action="pause", actor="ann", paused_by="ann")
    standing = look(traffic)
    assert standing.gates == []
    assert standing.decision is not None
    assert standing.decision.reason == "the rollout is paused: only a person changes it"


def test_a_task_that_is_not_declared_any_more_is_shown_as_it_was(traffic: Any) -> None:
    """Its table, its gateways, and no stages."""
    table = canary(traffic)
    (standing,) = standings(traffic.store, {}, traffic.start + timedelta(minutes=60), task=traffic.task)
    assert (standing.table, standing.decision, standing.track) == (table, None, [])
