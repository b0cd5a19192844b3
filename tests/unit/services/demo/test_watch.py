"""What the demo says of a decision."""

from typing import Any

from ratchet.services.demo.watch import sentence


def gate(name: str, verdict: str) -> dict[str, Any]:
    """A gate's figures."""
    return {"gate": name, "verdict": verdict, "stable": {"n": 3}, "candidate": {"n": 2}}


def test_a_gate_that_passed_before_is_proved_and_one_that_fails_now_fails() -> None:
    """The moment's verdict is said unless it is only that nothing new is known."""
    gates = [gate("completion", "inconclusive"), gate("error_rate", "inconclusive"), gate("latency_p95", "fail")]
    state = {"proved": ["completion 0.2 abs 0.1", "latency_p95 0.2 rel 0.05"]}
    row = {"candidate": "t@v1-00000000", "action": "abort", "stage": "20%", "state": state, "gates": gates}
    assert sentence(row) == (
        "t@v1-00000000: abort: completion proved (n 3/2), error_rate inconclusive (n 3/2), latency_p95 fail (n 3/2)"
    )


def test_a_start_says_where() -> None:
    """No gate was asked yet."""
    row = {"candidate": "t@v1-00000000", "action": "start", "stage": "shadow", "state": {}, "gates": []}
    assert sentence(row) == "t@v1-00000000: start → shadow"
