"""Lint: what can never decide or lets harm through is named with its field, its value and what is allowed."""

from typing import Any

import pytest

from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_policy import Stage
from ratchet.services.rules.rollouts.lint_traffic import lint_traffic
from ratchet.services.rules.rollouts.linting import Finding, lint
from ratchet.services.rules.rollouts.task_traffic import Measured, traffic_of

HIDDEN_IN_SHADOW = frozenset({"completion", "satisfaction"})
BUSY = Measured(requests_per_hour=5_000)
REFUSALS = {"name": "refuses", "kind": "refusal"}
COMPLETION = {"metric": "completion", "margin": 0.02}
ERRORS = {"metric": "error_rate", "margin": 0.005}
UNHEARD = ERRORS | {"dry_run": True}
HASTY = {"min_duration_s": 60, "max_wait_s": 30}
LONG = {"min_duration_s": 2 * 86_400, "gates": [ERRORS]}
TWENTY = {"name": "20%", "weight_bp": 2_000}
JSON, REFUSING = {"metric": "check:json", "margin": 0.01}, {"metric": "refusal_rate", "margin": 0.01}
WINS = {"metric": "win_rate", "margin": 0.1}
BOTH = {"gates": [ERRORS, WINS]}
SLOW = {"metric": "latency_p95", "margin": 3.0, "margin_kind": "rel"}
SHADOW, FIVE, ALL = (
    {"name": "shadow", "mirror_bp": 1_000},
    {"name": "5%", "weight_bp": 500},
    {"name": "100%", "weight_bp": 10_000},
)


def hidden(stage: Stage) -> frozenset[str]:
    """As the controller has it for a task whose completion is told by its users."""
    return frozenset({"win_rate"}) if stage.weight_bp else HIDDEN_IN_SHADOW


def task(gates: Any = None, stages: Any = None, **more: Any) -> TaskPolicy:
    """A task with a rollout policy; the default one where nothing is said."""
    own = {name: value for name, value in (("gates", gates), ("stages", stages)) if value is not None}
    checks = more.pop("checks", [])
    return TaskPolicy.model_validate({"rollout": own | more, "checks": checks})


def found(policy: TaskPolicy, trusted: dict[str, bool] | None = None) -> list[tuple[str, str, str]]:
    """Severity, field and value of what does not hang on traffic."""
    return [(one.severity, one.field, one.value) for one in lint(policy, hidden, trusted)]


def in_traffic(policy: TaskPolicy, seen: Measured = BUSY) -> list[Finding]:
    """What is wrong at this traffic."""
    return lint_traffic(policy, hidden, traffic_of(policy, seen, HIDDEN_IN_SHADOW))


def test_the_default_policy_is_sound() -> None:
    """Nothing is said against what Ratchet ships, with traffic enough."""
    assert found(task()) == []
    assert in_traffic(task()) == []
    assert in_traffic(task(), Measured(requests_per_hour=2_000_000)) == []


@pytest.mark.parametrize(
    ("policy", "severity", "field", "value"),
    [
        (task([COMPLETION], [ALL]), "error", "rollout.stages.weight_bp", "100% 10000"),
        (task([COMPLETION | {"critical": False}]), "error", "rollout.gates.critical", "none"),
        (task([COMPLETION | {"dry_run": True}]), "error", "rollout.gates.critical", "none"),
        (task([COMPLETION]), "error", "rollout.stages[shadow].gates", "completion"),
        (task([ERRORS], [SHADOW, FIVE | {"gates": [UNHEARD]}, ALL]), "error", "rollout.stages[5%].gates", "error_rate"),
        (task([ERRORS], [{"name": "shadow"}, FIVE, ALL]), "error", "rollout.stages[shadow].mirror_bp", "0"),
        (task([ERRORS], [FIVE, ALL | {"evidence": "reset"}]), "error", "rollout.stages[100%].evidence", "reset"),
        (task([ERRORS], [FIVE | HASTY, ALL]), "warning", "rollout.stages[5%].max_wait_s", "30"),
        (task([ERRORS, JSON]), "error", "rollout.gates[check:json]", "check:json"),
        (task([ERRORS, REFUSING]), "error", "rollout.gates[refusal_rate]", "refusal_rate"),
        (task([ERRORS], [FIVE | BOTH, ALL]), "error", "rollout.stages[5%].gates[win_rate]", "win_rate"),
        (task([ERRORS, WINS], [FIVE, ALL]), "error", "rollout.gates[win_rate]", "win_rate"),
        (task([ERRORS | {"alpha": 0.45}]), "error", "rollout.gates[error_rate].alpha", "0.45"),
        (task([ERRORS | {"alpha": 0.15}]), "warning", "rollout.gates[error_rate].alpha", "0.15"),
        (task([COMPLETION, ERRORS | {"margin": 0.0}]), "warning", "rollout.gates[error_rate].margin", "0"),
        (task([COMPLETION | {"margin": 0.6}, ERRORS]), "error", "rollout.gates[completion].margin", "0.6"),
        (task([COMPLETION | {"margin": 0.2}, ERRORS]), "warning", "rollout.gates[completion].margin", "0.2"),
        (task([ERRORS, SLOW]), "error", "rollout.gates[latency_p95].margin", "3"),
        (task([ERRORS], srm_alpha=0.05), "warning", "rollout.srm_alpha", "0.05"),
        (task([ERRORS], burst={"share": 0.05}), "warning", "rollout.burst.share", "0.05"),
    ],
)  # fmt: skip
def test_what_is_wrong_whatever_the_traffic(policy: TaskPolicy, severity: str, field: str, value: str) -> None:
    """Each is found, and named by field and value."""
    assert (severity, field, value) in found(policy)


def test_a_declared_check_and_a_stage_that_shows_it_are_fine() -> None:
    """Refusals with a check for them, a check by its name, a judge's win rate in shadow alone."""
    gates = [ERRORS, {"metric": "refusal_rate", "margin": 0.01}, {"metric": "win_rate", "margin": 0.05}]
    assert (
        found(
            task([*gates, {"metric": "check:refuses", "margin": 0.02}], checks=[REFUSALS]), trusted={"win_rate": True}
        )
        == []
    )


def test_a_judge_that_is_not_calibrated_is_a_warning() -> None:
    """Its gate never decides until then; nothing is said where nobody knows, or of a gate that is only shown."""
    gate = {"metric": "judge_score", "margin": 0.05}
    assert found(task([ERRORS, gate]), trusted={"judge_score": False}) == [
        ("warning", "rollout.gates[judge_score]", "judge_score")
    ]
    assert (
        found(task([ERRORS, gate]))
        == found(task([ERRORS, gate | {"dry_run": True}]), trusted={"judge_score": False})
        == []
    )


@pytest.mark.parametrize(
    ("policy", "seen", "severity", "field"),
    [
        (task([ERRORS, COMPLETION | {"max_n": 500}]), BUSY, "error", "rollout.gates[completion].max_n"),
        (task(), Measured(requests_per_hour=200), "error", "rollout.gates[completion].max_n"),
        (task(), Measured(requests_per_hour=100), "error", "rollout.gates[satisfaction].min_n"),
        (task(), Measured(requests_per_hour=5_000, users=300), "error", "rollout.gates[completion].max_n"),
        (task(), Measured(requests_per_hour=5_000, error_rate=0.05), "warning", "rollout.gates[error_rate].max_n"),
        (task([ERRORS], [FIVE | {"min_n": 50_000}, ALL]), BUSY, "error", "rollout.stages[5%].min_n"),
        (task([ERRORS | {"max_wait_s": 3_600.0}]), BUSY, "error", "rollout.gates[error_rate].max_n"),
        (task(burst={"min_n": 1, "share": 0.1}), BUSY, "error", "rollout.burst"),
        (task(stages=[FIVE | LONG, TWENTY, ALL]), BUSY, "error", "rollout.gates[completion].max_n"),
    ],
)
def test_what_cannot_decide_at_this_traffic(policy: TaskPolicy, seen: Measured, severity: str, field: str) -> None:
    """Too little traffic, users who repeat themselves, a max_n too small or used up, bursts in normal traffic."""
    assert (severity, field) in [(one.severity, one.field) for one in in_traffic(policy, seen)]


def test_a_finding_says_the_value_and_what_is_allowed() -> None:
    """What would do is said in numbers: with that max_n nothing is said any more."""
    [one] = in_traffic(task([ERRORS, COMPLETION | {"max_n": 500}]))
    assert str(one).startswith(
        "error: rollout.gates[completion].max_n = 500: with margin 0.02 and a stable mean of 0.9"
    )
    needed = int(one.allowed.split()[2])
    assert in_traffic(task([ERRORS, COMPLETION | {"max_n": needed}])) == []


def test_what_was_proved_earlier_is_not_asked_for_again() -> None:
    """Later stages need no time for a gate that the first stage with users proves, unless they start anew."""
    brief = {"name": "20%", "weight_bp": 2_000, "max_wait_s": 600}
    assert in_traffic(task([ERRORS], [FIVE, brief, ALL])) == []
    [one] = in_traffic(task([ERRORS], [FIVE, brief | {"evidence": "reset"}, ALL]))
    assert "in stage '20%'" in one.why
    anew = task(stages=[FIVE | LONG, TWENTY | {"evidence": "reset"}, ALL])
    assert [one for one in in_traffic(anew) if "carried" in one.why] == []
