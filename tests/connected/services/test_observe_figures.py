"""The figures of a rollout's evidence against the same computed from the events: by stage, arm, user and weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from ratchet.schemas.events import Inference, Score, Shadow
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rollout_events import Rollout, Span
from ratchet.schemas.rollout_policy import Gate, RolloutPolicy, Stage
from ratchet.services.controller.observe import observe
from ratchet.services.rules.rollouts.evidence import Evidence, Exceedances, Means, Paired, Sample, StageEvidence
from ratchet.services.rules.rollouts.transitions import begin
from ratchet.services.rules.routing import sticky_key

STAGES = [
    Stage(name="shadow", mirror_bp=10_000),
    Stage(name="5%", weight_bp=500),
    Stage(name="20%", weight_bp=2_000),
    Stage(name="50%", weight_bp=5_000),
    Stage(name="100%", weight_bp=10_000),
]
METRICS = ["error_rate", "cost", "length", "latency_p95", "completion", "refusal_rate", "check:polite", "judge_score"]
GATES = [Gate(metric=metric, margin=0.1, margin_kind="rel") for metric in [*METRICS, "win_rate"]]
CHECKS = [
    {"name": "ticket", "kind": "length"},
    {"name": "refuses", "kind": "refusal"},
    {"name": "polite", "kind": "length"},
]
POLICY = TaskPolicy.model_validate(
    {
        "completion": "ticket", "checks": CHECKS, "rollout": RolloutPolicy(stages=STAGES, gates=GATES),
        "judge": {"rubric": "helpful.v1"}, "pairwise": {"rubric": "pairwise.v1"},
    }
)  # fmt: skip
HOUR = timedelta(hours=1)
N = 240


@dataclass(frozen=True)
class Seen:
    """One answer as this test knows it: whose, in which stage and arm, and what was said of it."""

    key: str
    stage: int
    call: Inference | Shadow
    said: dict[str, tuple[float | None, float]]

    @property
    def failed(self) -> bool:
        return self.call.status in ("error", "timeout")


@pytest.fixture
def task(traffic: Any) -> Any:
    """Who makes this test's answers and what is said of them."""
    return Made(traffic)


class Made:
    """Random answers: a few users have most of them; verdicts and scores depend on the user."""

    def __init__(self, traffic: Any) -> None:
        self.traffic, self.rng = traffic, np.random.default_rng(3)
        name = traffic.adapter(1).name
        self.state: Rollout = begin(
            traffic.task, name, POLICY.rollout, None, traffic.start, traffic.new_id(), traffic.new_id()
        )

    def who(self) -> dict[str, str | None]:
        """A user; now and then only a conversation, or nobody known."""
        number = int(self.rng.pareto(0.8) * 2) % 40
        kind = self.rng.random()
        if kind < 0.8:
            return {"user": f"u{number}", "conversation_id": f"c{self.rng.integers(99)}"}
        return {"user": None, "conversation_id": f"c{number % 7}" if kind < 0.9 else None}

    def answer(self, at: Any, canary: bool, who: dict[str, Any], **over: Any) -> dict[str, Any]:
        """An answer's fields; every fourth call gives none."""
        status = over.get("status") or self.rng.choice(["ok"] * 6 + ["error", "timeout"])
        body = {
            "id": self.traffic.new_id(at), "at": at, "task": self.traffic.task, "base_model": "m",
            "adapter": self.state.candidate if canary else "base", "rollout_id": self.state.rollout_id,
            "request": {"prompt": "hello"}, "status": status, "source": "gateway", "tags": {},
            "response": {"content": "ä" * int(self.rng.integers(1, 90))} if status == "ok" else None,
            "latency_ms": float(self.rng.lognormal(5, 0.6)),
            "cost_usd": float(self.rng.random()) if self.rng.random() < 0.7 else None,
        }  # fmt: skip
        return body | who | over

    def words(self, call: Inference | Shadow, key: str, sampled: float) -> tuple[list[Score], dict[str, Any]]:
        """What checks and the judge say of an answer (nothing of one that failed)."""
        events: list[Score] = []
        said: dict[str, tuple[float | None, float]] = {}
        if call.status != "ok":
            return events, said
        lean = (sum(key.encode()) % 100) / 200
        for rubric in ("ticket", "refuses", "polite"):
            kind = self.rng.random()
            if kind < 0.1:
                continue
            value = None if kind < 0.2 else float(self.rng.random() < 0.3 + lean)
            said[rubric] = value, 1.0
            verdict = "abstain" if value is None else "pass" if value else "fail"
            events.append(self.score(call, "check", rubric, value, verdict=verdict))
        probability = 1.0 if self.rng.random() < 0.2 else 0.25
        if sampled < probability:
            value = None if self.rng.random() < 0.1 else float(np.clip(self.rng.normal(0.4 + lean, 0.1), 0, 1))
            said["helpful.v1"] = value, 1 / probability
            events.append(self.score(call, "pointwise", "helpful.v1", value, inclusion_probability=probability))
        return events, said

    def score(self, call: Any, kind: str, rubric: str, value: float | None, **over: Any) -> Score:
        """What was said of an answer."""
        body = {
            "id": self.traffic.new_id(call.at), "at": call.at, "task": call.task, "adapter": call.adapter,
            "target_id": call.id, "target": "shadow" if isinstance(call, Shadow) else "inference", "kind": kind,
            "judge": "j", "rubric": rubric, "rubric_hash": "0" * 16, "score": value,
            "verdict": "abstain" if value is None else "1",
        }  # fmt: skip
        return Score.model_validate(body | over)


def expected(rows: Iterable[tuple[str, float, float]], abstained: int = 0) -> Sample | None:
    """A sample of (user, value, weight), its variance from each user's distance from the mean."""
    found = list(rows)
    if not found:
        return None
    w = sum(weight for _, _, weight in found)
    mean = sum(weight * value for _, value, weight in found) / w
    square = sum(weight * value**2 for _, value, weight in found) / w
    off: dict[str, float] = {}
    for user, value, weight in found:
        off[user] = off.get(user, 0.0) + weight * (value - mean)
    c = len(off)
    variance = sum(one**2 for one in off.values()) / w**2 * c / (c - 1) if c > 1 else None
    n = len(found)
    return Sample(n, n * mean, n * square, abstained, c, variance)


def same(found: Sample | None, wanted: Sample | None) -> None:
    """Hold a sample to another, but for rounding."""
    assert found is not None
    assert wanted is not None
    pairs = [(getattr(found, name), getattr(wanted, name)) for name in Sample.__dataclass_fields__]
    assert [one for one, _ in pairs] == [pytest.approx(other, rel=1e-9, abs=1e-12) for _, other in pairs]


VALUES: dict[str, Callable[[Seen], tuple[float, float] | None]] = {
    "error_rate": lambda seen: (float(seen.failed), 1),
    "cost": lambda seen: None if seen.call.cost_usd is None else (seen.call.cost_usd, 1),
    "length": lambda seen: None if seen.call.response is None else (len(seen.call.response.content or ""), 1),
    "completion": lambda seen: (0.0, 1) if seen.failed else scored(seen, "ticket"),
    "refusal_rate": lambda seen: (1 - one[0], 1) if (one := scored(seen, "refuses")) else None,
    "check:polite": lambda seen: scored(seen, "polite"),
    "judge_score": lambda seen: scored(seen, "helpful.v1"),
}
RUBRICS = {"completion": "ticket", "refusal_rate": "refuses", "check:polite": "polite"}


def scored(seen: Seen, rubric: str) -> tuple[float, float] | None:
    """What was said by a rubric, with its weight; None where nothing or an abstention was."""
    value, weight = seen.said.get(rubric, (None, 1))
    return None if value is None else (value, weight)


def silent(seen: Seen, metric: str) -> bool:
    """Whether the check behind a metric abstained."""
    return metric in RUBRICS and seen.said.get(RUBRICS[metric], (0, 1))[0] is None


def evidence_of(found: StageEvidence, metric: str) -> Evidence:
    """A metric's evidence, which is there."""
    evidence = found.by_gate[metric]
    assert evidence is not None
    return evidence


def test_stages_with_users(task: Any) -> None:
    """Every metric of three stages, two of them carried: means, weights, users, abstentions, variances, thresholds."""
    traffic, rng = task.traffic, task.rng
    begun = [traffic.start + number * HOUR for number in range(3)]
    state = task.state.model_copy(
        update={
            "stage": "50%", "weight_bp": 5_000, "stage_started_at": begun[2],
            "carried": [
                Span(stage="5%", weight_bp=500, since=begun[0], until=begun[1]),
                # between two stages nothing counts
                Span(stage="20%", weight_bp=2_000, since=begun[1], until=begun[2] - HOUR / 4),
            ],
        }
    )  # fmt: skip
    seen: dict[tuple[int, bool], list[Seen]] = {}
    events: list[Any] = []
    for number in range(3 * N):
        at = begun[0] + 3 * HOUR * number / (3 * N)
        canary, who = bool(rng.random() < 0.4), task.who()
        call = Inference.model_validate(task.answer(at, canary, who) | {"stage": "canary" if canary else "stable"})
        scores, said = task.words(call, str(who), rng.random())
        events += [call, *scores]
        if not begun[2] - HOUR / 4 <= at < begun[2]:
            key = sticky_key(call.user, call.conversation_id, call.id)
            stage = int((at - begun[0]) / HOUR)
            seen.setdefault((stage, canary), []).append(Seen(key, stage, call, said))
    traffic.write(*events)
    traffic.write(*events[::2])  # redelivered
    found = observe(traffic.store, state, POLICY, begun[0] + 3 * HOUR)
    assert set(found.by_gate) == set(METRICS)
    assert found.unobservable == {"win_rate"}
    for metric, of in VALUES.items():
        strata = evidence_of(found, metric).strata
        assert len(strata) == 3
        for stage, one in enumerate(strata):
            assert isinstance(one, Means)
            for arm, canary in ((one.stable, False), (one.candidate, True)):
                rows = seen[stage, canary]
                values = [(row.key, *value) for row in rows if (value := of(row))]
                same(arm, expected(values, sum(silent(row, metric) for row in rows)))
    for stage, one in enumerate(evidence_of(found, "latency_p95").strata):
        assert isinstance(one, Exceedances)
        old = sorted(row.call.latency_ms for row in seen[stage, False] if row.call.status != "error")
        new = [row for row in seen[stage, True] if row.call.status != "error"]
        p95 = old[int(0.95 * len(old))]
        assert (one.n_stable, one.p95_stable_ms, one.threshold_ms) == (len(old), p95, pytest.approx(1.1 * p95))
        assert one.stable_users == len({row.key for row in seen[stage, False] if row.call.status != "error"})
        assert one.p95_candidate_ms == sorted(row.call.latency_ms for row in new)[int(0.95 * len(new))]
        same(one.over, expected([(row.key, float(row.call.latency_ms > 1.1 * p95), 1) for row in new]))
    assert found.requests == len(seen[2, True])


def test_a_shadow_stage_is_compared_request_by_request(task: Any) -> None:
    """Differences between a copy's answer and stable's: users, weights, and fallbacks as stable's failures."""
    traffic, rng, state = task.traffic, task.rng, task.state
    pairs: list[tuple[Seen, Seen]] = []
    events: list[Any] = []
    wins: dict[str, float | None] = {}
    for number in range(N):
        at, who = traffic.start + number * timedelta(seconds=1), task.who()
        stage = "fallback" if rng.random() < 0.1 else "stable"
        served = Inference.model_validate(task.answer(at, False, who, status="ok") | {"stage": stage})
        events.append(served)
        if rng.random() < 0.2:
            continue  # not mirrored
        body = task.answer(at + timedelta(seconds=0.5), True, who, inference_id=served.id)
        copy = Shadow.model_validate(body)
        # of another candidate, from before this one was chosen alone
        events.append(copy.model_copy(update={"id": traffic.new_id(), "adapter": "base", "status": "error"}))
        key, drawn = sticky_key(served.user, served.conversation_id, served.id), rng.random()
        scores, old = task.words(served, str(who), drawn)
        more, new = task.words(copy, str(who), drawn)
        events += [copy, *scores, *more]
        if copy.status == "ok" and rng.random() < 0.5:
            wins[key + copy.id] = value = [None, 0.0, 0.5, 1.0][rng.integers(4)]
            events.append(task.score(copy, "pairwise", "pairwise.v1", value, inclusion_probability=0.5))
        pairs.append((Seen(key, 0, served, old), Seen(key, 0, copy, new)))
    traffic.write(*events)
    traffic.write(*events[::2])
    found = observe(traffic.store, state, POLICY, traffic.start + HOUR)
    assert set(found.by_gate) == {*METRICS, "win_rate"}

    def served_value(seen: Seen, metric: str) -> tuple[float, float] | None:
        if seen.call.stage == "stable":
            return VALUES[metric](seen)
        return {"error_rate": (1.0, 1.0), "completion": (0.0, 1.0)}.get(metric)

    for metric in VALUES:
        (one,) = evidence_of(found, metric).strata
        assert isinstance(one, Paired)
        rows = [
            (old.key, a[0], b[0], max(a[1], b[1]))
            for old, new in pairs
            if (a := served_value(old, metric)) and (b := VALUES[metric](new))
        ]
        mute = [(silent(old, metric) and old.call.stage == "stable", silent(new, metric)) for old, new in pairs]
        same(one.stable, expected([(key, a, w) for key, a, _, w in rows], sum(a for a, _ in mute)))
        same(one.candidate, expected([(key, b, w) for key, _, b, w in rows], sum(b for _, b in mute)))
        same(one.difference, expected([(key, b - a, w) for key, a, b, w in rows], sum(a or b for a, b in mute)))
    (won,) = evidence_of(found, "win_rate").strata
    assert isinstance(won, Paired)
    assert (won.stable, won.candidate) == (None, None)
    told = [(new.key, wins[new.key + new.call.id]) for _, new in pairs if new.key + new.call.id in wins]
    values = [(key, value - 0.5, 2.0) for key, value in told if value is not None]
    same(won.difference, expected(values, sum(value is None for _, value in told)))
    (late,) = evidence_of(found, "latency_p95").strata
    assert isinstance(late, Exceedances)
    old = sorted(row.call.latency_ms for row, _ in pairs if row.call.stage == "stable")
    p95 = old[int(0.95 * len(old))]
    assert (late.n_stable, late.p95_stable_ms) == (len(old), p95)
    timed = [new for _, new in pairs if new.call.status != "error"]
    same(late.over, expected([(new.key, float(new.call.latency_ms > 1.1 * p95), 1) for new in timed]))
    assert found.requests == len(pairs)
    assert found.split is None


def test_several_candidates_are_each_compared_with_stable(task: Any) -> None:
    """While the best is sought each candidate's copies are compared by the metric that chooses; no gate is asked."""
    traffic, state = task.traffic, task.state
    names = [state.candidate, traffic.adapter(2).name, traffic.adapter(3).name]
    events: list[Any] = []
    values: dict[str, list[tuple[str, float, float]]] = {names[0]: [], names[1]: []}
    for number in range(60):
        at, who, name = traffic.start + number * timedelta(seconds=1), task.who(), names[number % 2]
        served = Inference.model_validate(task.answer(at, False, who, status="ok") | {"stage": "stable"})
        copy = Shadow.model_validate(task.answer(at, True, who, inference_id=served.id) | {"adapter": name})
        events += [served, copy]
        values[name].append((sticky_key(served.user, served.conversation_id, served.id), float(copy.status != "ok"), 1))
    traffic.write(*events)
    best = {"candidates": 3, "metric": "error_rate"}
    rollout = POLICY.rollout.model_copy(update={"best_arm": POLICY.rollout.best_arm.model_copy(update=best)})
    found = observe(
        traffic.store,
        state.model_copy(update={"arms": dict.fromkeys(names, 3_333)}),
        POLICY.model_copy(update={"rollout": rollout}),
        traffic.start + HOUR,
    )
    assert found.by_gate == {}
    for name, wanted in values.items():
        same(found.arms[name], expected(wanted))
    assert found.arms[names[2]] == Sample(0, 0, 0, users=0)
