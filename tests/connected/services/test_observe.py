"""What the evidence queries count: each answer once, by its last word, in its arm and its stage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ratchet.schemas.events import Feedback, Score
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.schemas.rows import instant
from ratchet.services.controller.observe import frozen_window, observe
from ratchet.services.rules.deciding import gates_of
from ratchet.services.rules.evidence import Evidence, Means, Sample
from ratchet.services.rules.gates import evaluate
from ratchet.services.rules.rollout import begin, promote

STAGES = [Stage(name="50%", weight_bp=5_000), Stage(name="100%", weight_bp=10_000)]


def running(traffic: Any, *gates: Gate, completion: str = "outcome") -> tuple[Rollout, TaskPolicy]:
    """A rollout at 50% whose gates ask for these."""
    policy = RolloutPolicy(stages=STAGES, gates=list(gates))
    checks = [] if completion == "outcome" else [{"name": completion, "kind": "length"}]
    task = TaskPolicy.model_validate({"completion": completion, "checks": checks, "rollout": policy})
    name = traffic.adapter(1).name
    return begin(traffic.task, name, policy, None, traffic.start, traffic.new_id(), traffic.new_id()), task


def seen(traffic: Any, state: Rollout, task: TaskPolicy) -> Means:
    """The evidence of the only gate, a minute after the start."""
    evidence = observe(traffic.store, state, task, traffic.start + timedelta(seconds=60))
    (gate,) = gates_of(task.rollout, STAGES[0])
    told = evidence.by_gate[gate.metric]
    assert told is not None
    (found,) = told.strata
    assert isinstance(found, Means)
    return found


def say(traffic: Any, seconds: float, value: Any, kind: str = "outcome", **target: str) -> Feedback:
    """Feedback some seconds after the start."""
    at = traffic.start + timedelta(seconds=seconds)
    body = {"id": traffic.new_id(at), "at": at, "task": traffic.task, "kind": kind, "value": value, "source": "http"}
    return Feedback.model_validate(body | target)


def test_outcomes_count_the_last_word_and_conversations_once(traffic: Any) -> None:
    """A changed mind counts once; a conversation's outcome belongs to its last answer; redelivery changes nothing."""
    state, task = running(traffic, Gate(metric="completion", margin=0.1))
    calls = traffic.calls(state, "canary", traffic.start, 5, errors=1)
    talk = [call.model_copy(update={"id": traffic.new_id(), "conversation_id": "c1"}) for call in calls[1:4]]
    traffic.write(*talk)
    words = [
        say(traffic, 1, False, inference_id=calls[1].id),
        say(traffic, 2, True, inference_id=calls[1].id),
        say(traffic, 2, True, inference_id=calls[0].id),
        say(traffic, 3, True, conversation_id="c1"),
        say(traffic, 4, True, kind="thumb", inference_id=calls[2].id),
    ]
    traffic.write(*words)
    traffic.write(*words)
    found = seen(traffic, state, task)
    # the failed call (not completed, whoever says otherwise), the changed mind, the conversation
    assert (found.stable, found.candidate) == (Sample(0, 0, 0), Sample(3, 2, 2))


def test_only_this_rollouts_calls_since_the_stage_began_count(traffic: Any) -> None:
    """Calls of another rollout, before the stage, pinned or cancelled are left out."""
    state, task = running(traffic, Gate(metric="error_rate", margin=0.1))
    calls = traffic.calls(state, "canary", traffic.start, 4, errors=1)
    traffic.calls(state, "canary", traffic.start - timedelta(seconds=1), 3)
    traffic.calls(state.model_copy(update={"rollout_id": traffic.new_id()}), "canary", traffic.start, 3)
    fresh = [call.model_copy(update={"id": traffic.new_id()}) for call in calls]
    traffic.write(fresh[1].model_copy(update={"stage": "pinned"}), fresh[2].model_copy(update={"status": "cancelled"}))
    traffic.write(*calls)
    assert seen(traffic, state, task).candidate == Sample.proportion(4, 1)


@pytest.mark.parametrize("copies_wait", [False, True])
def test_copies_that_wait_show_no_latency(traffic: Any, copies_wait: bool) -> None:
    """Behind users a copy is slow whatever the adapter: its latency is evidence only where it does not wait."""
    stages = [Stage(name="shadow", mirror_bp=10_000), *STAGES]
    gates = [Gate(metric="latency_p95", margin=0.2), Gate(metric="error_rate", margin=0.1)]
    task = TaskPolicy(rollout=RolloutPolicy(stages=stages, gates=gates))
    name = traffic.adapter(1).name
    state = begin(traffic.task, name, task.rollout, None, traffic.start, traffic.new_id(), traffic.new_id())
    traffic.mirror(state, traffic.calls(state, "stable", traffic.start, 30), completed=30, latency_ms=900)
    now = traffic.start + timedelta(seconds=60)
    evidence = observe(traffic.store, state, task, now, copies_wait)
    assert ("latency_p95" in evidence.unobservable) is copies_wait
    assert set(evidence.by_gate) == {"error_rate"} | ({"latency_p95"} - evidence.unobservable)


def test_sampled_judge_scores_are_weighted(traffic: Any) -> None:
    """A score sampled at 10% stands for ten; n is Kish's effective size; a later score replaces the earlier."""
    state, task = running(traffic, Gate(metric="judge_score", margin=0.1))
    calls = traffic.calls(state, "canary", traffic.start, 3)
    said = [(0, 1, 0.2, 1.0), (0, 2, 0.4, 1.0), (1, 1, 0.9, 0.1)]
    for call, seconds, score, probability in said:
        at = traffic.start + timedelta(seconds=seconds)
        body = {
            "id": traffic.new_id(at), "at": at, "task": traffic.task, "adapter": state.candidate,
            "target_id": calls[call].id, "target": "inference", "kind": "pointwise", "judge": "j",
            "rubric": "helpful.v1", "rubric_hash": "0" * 16, "score": score, "inclusion_probability": probability,
        }  # fmt: skip
        traffic.write(Score.model_validate(body))
    (judged,) = observe(traffic.store, state, task, traffic.start + timedelta(seconds=60)).by_gate.values()
    assert isinstance(judged, Evidence)
    assert not judged.trusted  # nobody labelled anything
    (found,) = judged.strata
    assert isinstance(found, Means)
    assert found.stable is None
    assert found.candidate is not None
    assert found.candidate.n == pytest.approx((1 + 10) ** 2 / (1 + 100))
    assert found.candidate.mean == pytest.approx((0.4 + 9.0) / 11)


def test_an_advisory_judge_decides_nothing_until_it_is_trusted(traffic: Any) -> None:
    """What a judge without labels says is shown and neither passes nor fails; with labels it counts."""
    gate = Gate(metric="judge_score", margin=0.1, min_n=10, max_n=200)
    state, task = running(traffic, gate)
    stable = traffic.calls(state, "stable", traffic.start, 60)
    calls = traffic.calls(state, "canary", traffic.start, 60)

    def words(of: Any, good: int, judge: str = "j", older_s: float = 0) -> list[Score]:
        return [
            Score.model_validate({
                "id": traffic.new_id(traffic.start), "at": call.at - timedelta(seconds=older_s),
                "task": traffic.task, "adapter": call.adapter, "target_id": call.id,
                "target": "inference", "kind": "pointwise", "judge": judge,
                "rubric": "helpful.v1", "rubric_hash": "0" * 16, "score": 0.9 if number < good else 0.1,
            })
            for number, call in enumerate(of)
        ]  # fmt: skip

    def verdict() -> tuple[str, str]:
        now = traffic.start + timedelta(seconds=60)
        (evidence,) = observe(traffic.store, state, task, now).by_gate.values()
        result = evaluate(gate, evidence)
        return result.verdict, result.reason

    # the word of the judge before is not mixed in
    traffic.write(*words(stable, 0, judge="a", older_s=1), *words(stable, 59), *words(calls, 1))
    said, reason = verdict()
    assert said == "inconclusive"
    assert "shown to be worse than the margin" in reason
    assert reason.endswith("; judged by j, advisory: no human label of an answer that it scored (n = 0 of 50)")
    votes = []
    for number, call in enumerate([*stable[:58], *calls[:40]]):
        body = {"id": traffic.new_id(traffic.start), "at": call.at, "task": traffic.task, "inference_id": call.id}
        votes.append(Feedback.model_validate(body | {"kind": "thumb", "value": number < 58, "source": "http"}))
    traffic.write(*votes)
    said, reason = verdict()
    assert said == "fail"
    assert "; judged by j, trusted: agreement 99% [94%, 100%], n = 98" in reason


def test_the_frozen_window_is_the_last_stage_with_both_arms(traffic: Any) -> None:
    """From that stage's own start to the first table of 100%, however often 100% was paused and resumed."""
    state, task = running(traffic)
    resumed = state.model_copy(update={"version": 2, "stage_started_at": traffic.start + timedelta(seconds=5)})
    full_at = traffic.start + timedelta(seconds=9)
    full = promote(resumed, task.rollout, full_at, traffic.new_id(), "ada", "", full=False)
    again = full.model_copy(update={"version": 4, "at": full_at + timedelta(seconds=50)})
    assert frozen_window([state, resumed, full, again], "100%") == (resumed.stage_started_at, full_at)
    assert frozen_window([full, again], "100%") is None
    assert frozen_window([], "100%") is None


def test_completion_counts_verdicts_and_abstentions_apart(traffic: Any) -> None:
    """A graded check completes by its verdict; an abstention is no completion and no failure, and is counted."""
    state, task = running(traffic, Gate(metric="completion", margin=0.1), completion="ticket")
    calls = traffic.calls(state, "canary", traffic.start, 6, errors=1)
    said: list[dict[str, Any]] = [
        {"score": 0.95, "verdict": "pass"},
        {"score": 0.85, "verdict": "fail"},
        {"verdict": "abstain"},
        {"verdict": "abstain"},
    ]
    for call, word in zip(calls, [said[2], *said], strict=False):
        body = {
            "id": traffic.new_id(call.at), "at": call.at, "task": traffic.task, "adapter": call.adapter,
            "target_id": call.id, "target": "inference", "kind": "check", "judge": "check", "rubric": "ticket",
            "rubric_hash": "0" * 16,
        }  # fmt: skip
        traffic.write(Score.model_validate(body | word))
    # the failed call, whatever was said of it, the pass and the fail; two abstained; of one nothing was said
    assert seen(traffic, state, task).candidate == Sample(3, 1, 1, abstained=2)
    told = traffic.store.query("completion_timeline", task=traffic.task, check="ticket", since=instant(traffic.start))
    assert [row["completed"] for row in told] == [1, 0]
