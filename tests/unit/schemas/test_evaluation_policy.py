"""What an evaluation may be asked, and what is refused with a name and what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from ratchet.schemas.evaluation_policy import EvaluationGate, EvaluationPolicy
from ratchet.schemas.policies import TaskPolicy


def test_a_text_is_the_prompts_alone() -> None:
    """`evaluation = "file"` is the table with that file; neither has gates."""
    assert TaskPolicy.model_validate({"evaluation": "held.jsonl"}) == TaskPolicy.model_validate(
        {"evaluation": {"prompts": "held.jsonl"}}
    )
    assert TaskPolicy().evaluation.measured == []


def test_what_is_measured_is_what_gates_and_metrics_and_tasks_name() -> None:
    """Each metric once; a regression task by its file's name."""
    policy = EvaluationPolicy.model_validate(
        {
            "prompts": "p",
            "metrics": ["bleu", "json_valid"],
            "gates": [{"metric": "bleu", "floor": 10}, {"metric": "lm_eval:sums", "margin": 0.1}],
            "lm_eval": ["tasks/sums.yaml", "arc_easy"],
        }
    )
    assert policy.measured == ["bleu", "lm_eval:sums", "json_valid", "lm_eval:arc_easy"]


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ({"metric": "fluency", "floor": 1}, "metric 'fluency'; allowed: completion"),
        ({"metric": "bleu"}, "gate bleu: no bound; allowed: exactly one of margin, floor"),
        ({"metric": "bleu", "floor": 1, "margin": 1}, "margin and floor"),
        ({"metric": "bleu", "ceiling": 1}, "gate bleu: ceiling; allowed: exactly one of margin, floor"),
        ({"metric": "over_refusal", "floor": 0.1}, "allowed: exactly one of margin, ceiling"),
        ({"metric": "win_rate", "margin": 0.1}, "allowed: exactly one of floor"),
        ({"metric": "bleu", "margin": 1.5, "margin_kind": "rel"}, "allowed: a margin below 1"),
        ({"metric": "bleu", "floor": float("nan")}, "finite"),
    ],
)
def test_a_gate_asks_one_thing_that_can_be_asked(gate: dict[str, Any], told: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValidationError, match=told):
        EvaluationGate.model_validate(gate)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ({"gates": [{"metric": "bleu", "floor": 1}]}, "metric 'bleu' is measured on prompts, which is not set"),
        ({"metrics": ["refusal"]}, "metric 'refusal' is measured on harmful"),
        ({"metrics": ["over_refusal"]}, "measured on harmless"),
        ({"prompts": "p", "metrics": ["required_fields"]}, "measured on required_fields"),
        ({"metrics": ["lm_eval:sums"]}, "lm_eval names no task 'sums'"),
        ({"metrics": ["style"]}, "metrics: 'style'; allowed"),
        ({"lm_eval": ["a/sums.yaml", "b/sums.yaml"]}, "names repeat"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_the_settings(policy: dict[str, Any], told: str) -> None:
    """A metric without what it is measured on is an error at the start, not an inconclusive gate after a training."""
    with pytest.raises(ValidationError, match=told):
        EvaluationPolicy.model_validate(policy)


def test_completion_by_outcome_events_cannot_be_a_gate_here() -> None:
    """Held-out prompts have no outcome events."""
    gates = {"prompts": "p", "gates": [{"metric": "completion", "floor": 0.5}]}
    with pytest.raises(ValidationError, match="held-out prompts have no outcome events"):
        TaskPolicy.model_validate({"evaluation": gates})
