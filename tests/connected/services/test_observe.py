"""What the evidence counts: each answer once, by its last word, in its arm and its stage; the split, bursts, pages."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ratchet.schemas.events import Feedback, Inference, Score
from ratchet.schemas.monitoring_events import Alert
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout, Span
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.schemas.rows import instant
from ratchet.services.controller.observe import observe
from ratchet.services.rules.rollouts.evidence import Burst, Means, Sample, Split, StageEvidence
from ratchet.services.rules.rollouts.gates import evaluate
from ratchet.services.rules.rollouts.transitions import begin

STAGES = [Stage(name="50%", weight_bp=5_000), Stage(name="100%", weight_bp=10_000)]
SHADOW = Stage(name="shadow", mirror_bp=10_000)
ERRORS = Gate(metric="error_rate", margin=0.1)


def running(traffic: Any, *gates: Gate, completion: str = "outcome", first: Stage | None = None) -> Any:
    """A rollout at 50% (or in another first stage) whose gates ask for these, and its task."""
    policy = RolloutPolicy(stages=[first, *STAGES] if first else STAGES, gates=list(gates))
    checks = [] if completion == "outcome" else [{"name": completion, "kind": "length"}]
    task = TaskPolicy.model_validate({"completion": completion, "checks": checks, "rollout": policy})
    name = traffic.adapter(1).name
    return begin(traffic.task, name, policy, None, traffic.start, traffic.new_id(), traffic.new_id()), task


def look(traffic: Any, state: Rollout, task: TaskPolicy, seconds: float = 60) -> StageEvidence:
    """The evidence some seconds after the start."""
    return observe(traffic.store, state, task, traffic.start + timedelta(seconds=seconds))


def seen(traffic: Any, state: Rollout, task: TaskPolicy, seconds: float = 60) -> list[Means]:
    """The only gate's strata."""
    (told,) = look(traffic, state, task, seconds).by_gate.values()
    assert told is not None
    assert all(isinstance(one, Means) for one in told.strata)
    return [one for one in told.strata if isinstance(one, Means)]


def counts(sample: Sample | None) -> tuple[float, float, int | None]:
    """Observations, their sum, and whose they are."""
    return (sample.n, sample.total, sample.users) if sample else (0, 0, 0)


def say(traffic: Any, seconds: float, value: Any, kind: str = "outcome", **target: str) -> Feedback:
    """Feedback some seconds after the start."""
    at = traffic.start + timedelta(seconds=seconds)
    body = {"id": traffic.new_id(at), "at": at, "task": traffic.task, "kind": kind, "value": value, "source": "http"}
    return Feedback.model_validate(body | target)


def again(traffic: Any, call: Inference, **over: Any) -> Inference:
    """Another call like this one."""
    return call.model_copy(update={"id": traffic.new_id(), **over})


def test_outcomes_count_the_last_word_and_conversations_once(traffic: Any) -> None:
    """A changed mind counts once, a conversation's outcome for the last answer before it; redelivery adds nothing."""
    state, task = running(traffic, Gate(metric="completion", margin=0.1))
    calls = traffic.calls(state, "canary", traffic.start, 5, errors=1)
    later = {"conversation_id": "c1", "at": traffic.start + timedelta(seconds=5)}
    traffic.write(*[again(traffic, call, conversation_id="c1") for call in calls[1:4]])
    # the word came before this answer of the other arm; and what a fallback said is nobody's
    traffic.write(again(traffic, calls[1], stage="stable", **later))
    traffic.write(again(traffic, calls[1], conversation_id="c2"))
    traffic.write(
        again(traffic, calls[1], conversation_id="c2", stage="fallback", at=traffic.start + timedelta(seconds=1))
    )
    words = [
        say(traffic, 1, False, inference_id=calls[1].id),
        say(traffic, 2, True, inference_id=calls[1].id),
        say(traffic, 2, True, inference_id=calls[0].id),
        say(traffic, 3, True, conversation_id="c1"),
        say(traffic, 3, True, conversation_id="c2"),
        say(traffic, 4, True, kind="thumb", inference_id=calls[2].id),
    ]
    traffic.write(*words)
    traffic.write(*words)
    (found,) = seen(traffic, state, task)
    # the failed call (not completed, whoever says otherwise), the changed mind, the conversation
    assert (counts(found.stable), counts(found.candidate)) == ((0, 0, 0), (3, 2, 3))


def test_a_late_word_counts_in_the_stage_of_its_answer(traffic: Any) -> None:
    """Thumbs that come after a stage ended are of that stage's stratum, in their own arm."""
    state, task = running(traffic, Gate(metric="satisfaction", margin=0.1))
    old = traffic.calls(state, "stable", traffic.start, 3) + traffic.calls(state, "canary", traffic.start, 4)
    begun = traffic.start + timedelta(seconds=30)
    new = traffic.calls(state, "canary", begun, 2)
    span = Span(stage="5%", weight_bp=500, since=traffic.start, until=begun)
    state = state.model_copy(update={"carried": [span], "stage_started_at": begun})
    traffic.write(
        *[say(traffic, 50, call is not old[0], kind="thumb", inference_id=call.id) for call in [*old, new[0]]]
    )
    first, present = seen(traffic, state, task)
    assert (counts(first.stable), counts(first.candidate)) == ((3, 2, 3), (4, 4, 4))
    assert (counts(present.stable), counts(present.candidate)) == ((0, 0, 0), (1, 1, 1))


def test_only_this_rollouts_calls_since_the_stage_began_count(traffic: Any) -> None:
    """Calls of another rollout, a microsecond before the stage, pinned, cancelled or a fallback's are left out."""
    state, task = running(traffic, ERRORS)
    begun = traffic.start + timedelta(microseconds=7)
    state = state.model_copy(update={"stage_started_at": begun})
    calls = traffic.calls(state, "canary", begun, 4, errors=1)
    traffic.calls(state, "canary", begun - timedelta(microseconds=1), 1)
    traffic.calls(state.model_copy(update={"rollout_id": traffic.new_id()}), "canary", begun, 3)
    for other in ({"stage": "pinned"}, {"stage": "fallback"}, {"status": "cancelled"}):
        traffic.write(again(traffic, calls[1], **other))
    traffic.write(*calls)
    (found,) = seen(traffic, state, task)
    assert counts(found.candidate) == (4, 1, 4)
    assert look(traffic, state, task).requests == 4


def test_at_100_percent_only_what_was_carried_is_compared(traffic: Any) -> None:
    """Nobody is left on stable: the stage's calls are requests and no stratum; with nothing carried nothing is seen."""
    state, task = running(traffic, ERRORS)
    traffic.calls(state, "stable", traffic.start, 5)
    traffic.calls(state, "canary", traffic.start, 5, errors=2)
    begun = traffic.start + timedelta(seconds=30)
    full = state.model_copy(update={"stage": "100%", "weight_bp": 10_000, "stage_started_at": begun})
    span = Span(stage="50%", weight_bp=5_000, since=traffic.start, until=begun)
    traffic.calls(full, "canary", begun, 7, errors=7)
    (found,) = seen(traffic, full.model_copy(update={"carried": [span]}), task)
    assert (counts(found.stable), counts(found.candidate)) == ((5, 0, 5), (5, 2, 5))
    bare = look(traffic, full, task)
    assert (bare.by_gate, bare.requests, bare.split) == ({"error_rate": None}, 7, None)


@pytest.mark.parametrize("copies_wait", [False, True])
def test_copies_that_wait_show_no_latency(traffic: Any, copies_wait: bool) -> None:
    """Behind users a copy is slow whatever the adapter: its latency is evidence only where it does not wait."""
    gates = [Gate(metric=metric, margin=0.2) for metric in ("latency_p95", "error_rate", "satisfaction", "completion")]
    state, task = running(traffic, *gates, first=SHADOW)
    traffic.mirror(state, traffic.calls(state, "stable", traffic.start, 3), completed=3)
    found = observe(traffic.store, state, task, traffic.start + timedelta(seconds=60), copies_wait, ["g1"])
    assert found.unobservable == {"satisfaction", "completion"} | ({"latency_p95"} if copies_wait else set())
    assert set(found.by_gate) == {"error_rate"} | ({"latency_p95"} - found.unobservable)
    assert found.waiting_for == ("g1",)


def test_users_are_split_and_bursts_counted(traffic: Any) -> None:
    """Keys of each arm between a stage's first seconds and its last minutes, whatever became of their calls; bursts."""
    state, task = running(traffic, ERRORS)
    traffic.calls(state, "canary", traffic.start, 9, errors=9)  # before every gateway has the table: calls, not keys
    settled = traffic.start + timedelta(seconds=5)
    stable = traffic.calls(state, "stable", settled, 3, errors=1)
    canary = traffic.calls(state, "canary", settled, 4, errors=2)
    traffic.write(
        *[again(traffic, stable[0], user=user) for user in ("u1", "u1", "u2")],
        again(traffic, canary[0], user="u2"),  # in both arms
        again(traffic, canary[0], conversation_id="c1", status="cancelled"),
        again(traffic, canary[0], stage="fallback"),
    )
    # a slower arm's calls are known later: who began just now is not counted yet
    traffic.write(again(traffic, stable[0], user="u3", at=traffic.start + timedelta(seconds=40)))
    assert look(traffic, state, task, seconds=150 + 39).split == Split(stable=5, candidate=6, weight_bp=5_000)
    assert look(traffic, state, task, seconds=150 + 41).split == Split(stable=6, candidate=6, weight_bp=5_000)
    now = look(traffic, state, task)
    assert now.split == Split(0, 0, 5_000)
    assert now.burst == Burst(n_stable=7, failed_stable=5, n_candidate=14, failed_candidate=12)
    assert now.requests == 14
    late = look(traffic, state, task, seconds=64.999)
    assert late.burst == Burst(n_stable=7, failed_stable=5, n_candidate=5, failed_candidate=3)
    traffic.write(again(traffic, canary[3], at=traffic.start, status="timeout", latency_ms=50_000))
    hung = look(traffic, state, task, seconds=64.999)
    assert hung.burst == Burst(7, 5, n_candidate=6, failed_candidate=4), "it began before, and failed just now"
    restarted = state.model_copy(update={"stage_started_at": traffic.start + timedelta(seconds=41)})
    assert look(traffic, restarted, task).burst == Burst(0, 0, 0, 0), "nothing from before the stage"


def test_copies_are_the_candidates_calls(traffic: Any) -> None:
    """In shadow the candidate's requests and its last failures are those of the copies; there is no split."""
    state, task = running(traffic, ERRORS, first=SHADOW)
    traffic.mirror(state, traffic.calls(state, "stable", traffic.start, 6, errors=1)[1:4], completed=3)
    found = look(traffic, state, task)
    assert (found.requests, found.split, found.burst) == (3, None, Burst(6, 1, 3, 0))


def test_an_open_critical_alert_about_the_candidate_is_a_page(traffic: Any) -> None:
    """Of the candidate, critical, open and said since the rollout began; off where the policy says so."""
    state, task = running(traffic, ERRORS)

    def alert(**over: Any) -> Alert:
        at = traffic.start + timedelta(seconds=9)
        body = {
            "id": traffic.new_id(at), "at": at, "task": traffic.task, "adapter": state.candidate, "kind": "drift",
            "severity": "critical", "title": "answers got shorter", "source": "drift",
        }  # fmt: skip
        return Alert.model_validate(body | over)

    before = traffic.start - timedelta(seconds=1)
    traffic.write(
        alert(severity="warning"), alert(state="resolved"), alert(state="acknowledged"), alert(adapter="base"),
        alert(at=before), alert(task="other"),
    )  # fmt: skip
    assert look(traffic, state, task).page is None
    page = alert()
    traffic.write(page)
    assert look(traffic, state, task).page == f"critical alert {page.id} about {state.candidate}: answers got shorter"
    off = task.rollout.model_copy(update={"abort_on_page": False})
    assert look(traffic, state, task.model_copy(update={"rollout": off})).page is None
    traffic.write(page.model_copy(update={"state": "resolved", "at": page.at + timedelta(seconds=1)}))
    assert look(traffic, state, task).page is None


def test_a_later_score_replaces_an_earlier_one_in_whatever_order_they_are_stored(traffic: Any) -> None:
    """Judged again, an answer counts by what was said last; that older words are redelivered changes nothing."""
    state, task = running(traffic, Gate(metric="judge_score", margin=0.1))
    (call,) = traffic.calls(state, "canary", traffic.start, 1)
    body = {
        "at": call.at, "task": traffic.task, "adapter": state.candidate, "target_id": call.id, "target": "inference",
        "kind": "pointwise", "judge": "j", "rubric": "helpful.v1", "rubric_hash": "0" * 16,
    }  # fmt: skip
    for seconds, score in ((2, 0.4), (1, 0.2)):
        at = traffic.start + timedelta(seconds=seconds)
        traffic.write(Score.model_validate(body | {"id": traffic.new_id(at), "score": score, "judged_at": at}))
    (found,) = seen(traffic, state, task)
    assert found.stable is None
    assert found.candidate == Sample(1, 0.4, pytest.approx(0.16), users=1, mean_variance=None)


def test_a_check_that_nobody_declared_is_missing_evidence(traffic: Any) -> None:
    """A refusal rate without a refusal check has nothing to ask."""
    state, task = running(traffic, Gate(metric="refusal_rate", margin=0.1))
    assert look(traffic, state, task).by_gate == {"refusal_rate": None}


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
    (found,) = seen(traffic, state, task)
    assert counts(found.candidate) == (3, 1, 3)
    assert found.candidate is not None
    assert found.candidate.abstained == 2
    told = traffic.store.query("completion_timeline", task=traffic.task, check="ticket", since=instant(traffic.start))
    assert [row["completed"] for row in told] == [1, 0]
