from __future__ import annotations

import uuid

from ratchet.consumers.judge import best_measured, judge_agreement
from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.schemas.events import Event, Feedback, Score
from ratchet.schemas.ids import uuid7
from ratchet.schemas.rows import row


def test_agreement_with_people(clickhouse: str) -> None:
    """Judged answers with a human label are compared; abstentions, checks and split opinions are left out."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    at = "2026-10-01T00:00:00Z"
    events: list[Event] = []

    def judged(on: str, score: float | None, **more: object) -> None:
        said = {"score": score} if score is not None else {"verdict": "abstain"}
        fields = {"kind": "pointwise", "judge": "j", "rubric": "r", "target": "inference"} | said | more
        ids = {"id": uuid7(1, uuid.uuid4().bytes), "at": at, "task": task, "adapter": "base", "target_id": on}
        events.append(Score.model_validate(ids | {"rubric_hash": "0" * 16} | fields))

    def said(on: str, kind: str, value: object) -> None:
        ids = {"id": uuid7(1, uuid.uuid4().bytes), "at": at, "task": task, "inference_id": on, "source": "http"}
        events.append(Feedback.model_validate(ids | {"kind": kind, "value": value}))

    targets = [uuid7(n, uuid.uuid4().bytes) for n in range(9)]
    for target, score, kind, value in zip(
        targets,
        [0.9, 0.5, 0.1, 0.9, 0.2, None, 0.9],
        ["thumb", "outcome", "thumb", "correction", "outcome", "thumb", "rating"],
        [True, True, False, "better", True, True, 0.5],
        strict=False,
    ):
        judged(target, score)
        said(target, kind, value)
    judged(targets[7], 0.9)  # nobody said anything of it
    judged(targets[0], 0.0, kind="check", judge="check")
    judged(targets[8], 1.0, target="shadow")
    said(targets[8], "thumb", True)
    with connect(clickhouse) as store:
        migrate(store)
        for event in events + events[:4]:
            found = row(event)
            assert found is not None
            store.insert_rows(found[0], [found[1]])
        rows = judge_agreement(store, task)
    assert [(r["judge"], r["n"], r["agree"]) for r in rows] == [("j", 5, 3)]
    best = best_measured(rows)
    assert best is not None
    assert (best.both_good, best.judge_only_good, best.people_only_good, best.both_bad) == (2, 1, 1, 1)
    assert best_measured([]) is None
