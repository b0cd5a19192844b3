"""How fast a flip was, computed again from the events."""

from datetime import timedelta
from typing import Any

from ratchet.schemas.rollout_events import Gateway
from ratchet.schemas.rollout_policy import RolloutPolicy, Stage
from ratchet.services.rules.rollouts.transitions import abort, begin


def test_a_switch_is_from_the_decision_to_the_last_request_and_the_last_acknowledgement(traffic: Any) -> None:
    """Two gateways follow after 0.2 and 0.5 s; the candidate was asked for 0.4 s more; a third one is missed."""
    policy = RolloutPolicy(stages=[Stage(name="all", weight_bp=10_000)])
    running = begin(
        traffic.task, traffic.adapter(1).name, policy, None, traffic.start, traffic.new_id(), traffic.new_id()
    )
    # hours away from what gateways of other tests say
    decided = traffic.start + timedelta(hours=9)
    ended = abort(running, decided, traffic.new_id(decided), "controller", "bad")
    traffic.write(running, ended)
    traffic.calls(running, "canary", decided - timedelta(seconds=5), 3)
    traffic.calls(running, "canary", decided + timedelta(seconds=0.4), 1)

    def say(gateway: str, seconds: float, version: int) -> None:
        at = decided + timedelta(seconds=seconds)
        body = {"id": traffic.new_id(at), "at": at, "gateway": gateway, "tables": {traffic.task: version}}
        traffic.write(Gateway.model_validate(body | {"since": {traffic.task: at}}))

    for name, seconds in (("a", 0.2), ("b", 0.5)):
        say(name, -5, running.version)
        say(name, seconds, ended.version)
        say(name, seconds + 5, ended.version)
    (row,) = traffic.store.query("rollout_switches", task=traffic.task, most=5)
    assert (row["action"], row["adapter"], row["switch_seconds"]) == ("abort", running.candidate, 0.4)
    assert (row["gateways"], row["followed"]) == (2, 2)
    assert (row["acknowledged_at"] - decided).total_seconds() == 0.5
    say("c", -5, running.version)
    (row,) = traffic.store.query("rollout_switches", task=traffic.task, most=5)
    assert (row["gateways"], row["followed"], row["acknowledged_at"]) == (3, 2, None)
