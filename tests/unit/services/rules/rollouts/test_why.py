"""Why an adapter serves: from the audit log's tables back to how the stable adapter became so."""

from datetime import UTC, datetime, timedelta
from typing import Any

from ratchet.schemas.ids import uuid7
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.rollouts.why import Why, explain

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
V1, V2, V3 = (f"support@v{n}-00000000" for n in (1, 2, 3))


class Log:
    """Tables, a minute apart."""

    def __init__(self) -> None:
        self.tables: list[Rollout] = []
        self.rollouts = 0

    def add(self, action: str, **more: Any) -> None:
        """One more table: the last one with changes; a start is another rollout."""
        at = START + timedelta(minutes=len(self.tables))
        self.rollouts += action == "start"
        id = uuid7(int(at.timestamp() * 1000), bytes(10))
        last = self.tables[-1].model_dump() if self.tables else {"stable": "base", "task": "support", "salt": ""}
        own = {
            "id": id, "at": at, "version": len(self.tables) + 1, "action": action, "actor": "controller",
            "stage_started_at": at,
        }  # fmt: skip
        rollout = {"rollout_id": id, "status": "running", "stage": "shadow", "weight_bp": 0, "mirror_bp": 1_000}
        body = last | own | (rollout if action == "start" else {}) | more
        self.tables.append(Rollout.model_validate({key: value for key, value in body.items() if key != "schema_"}))

    def promoted(self, candidate: str) -> None:
        """A whole rollout."""
        before = self.tables[-1].stable if self.tables else "base"
        self.add("start", candidate=candidate)
        self.add("advance", stage="50%", weight_bp=5_000, mirror_bp=0)
        self.add("prove", reason="completion: within the margin")
        self.add("promote", status="promoted", stable=candidate, previous=before, weight_bp=0)

    def why(self) -> Why:
        """Of the last table."""
        found = explain(self.tables)
        assert found is not None
        return found


def told(tables: list[Rollout]) -> list[tuple[int, str]]:
    """Versions and actions."""
    return [(table.version, table.action) for table in tables]


def test_without_tables_there_is_nothing_to_explain() -> None:
    """Everything goes to the base model."""
    assert explain([]) is None


def test_a_promoted_adapter_serves_because_of_its_whole_rollout() -> None:
    """The promotion, and every decision of its rollout, the latest first; nothing is under way."""
    log = Log()
    log.promoted(V1)
    why = log.why()
    assert why.shares == {V1: 1.0}
    assert why.rollout == []
    assert told(why.became_stable) == [(4, "promote"), (3, "prove"), (2, "advance"), (1, "start")]
    assert why.decided.action == "promote"


def test_in_mid_canary_both_arms_are_explained() -> None:
    """The shares, the decision that made them, the candidate's rollout, and the stable one's before it."""
    log = Log()
    log.promoted(V1)
    log.add("start", candidate=V2)
    log.add("advance", stage="20%", weight_bp=2_000, mirror_bp=0)
    log.add("prove")
    log.add("pause", status="paused", actor="ann")
    why = log.why()
    assert why.shares == {V1: 0.8, V2: 0.2}
    assert (why.table.action, why.decided.action, why.decided.version) == ("pause", "advance", 6)
    assert told(why.rollout) == [(8, "pause"), (7, "prove"), (6, "advance"), (5, "start")]
    assert why.became_stable[0].version == 4


def test_a_shadow_serves_nobody_and_the_full_stage_everybody() -> None:
    """Mirrored copies are no share of users; at 100% the stable adapter has none left."""
    log = Log()
    log.add("start", candidate=V1)
    assert log.why().shares == {"base": 1.0}
    log.add("advance", stage="100%", weight_bp=10_000, mirror_bp=0)
    assert log.why().shares == {V1: 1.0}
    log.add("abort", status="aborted", weight_bp=0)
    assert log.why().shares == {"base": 1.0}


def test_an_undo_leads_back_to_the_rollout_that_once_promoted_it() -> None:
    """Who went back, then how the adapter became stable in the first place."""
    log = Log()
    log.promoted(V1)
    log.promoted(V2)
    log.add("undo", status="idle", stage="", stable=V1, previous=V2, candidate=None, actor="ann")
    log.add("refuse", actor="bob", reason="nothing to pause")
    why = log.why()
    assert told(why.became_stable) == [(9, "undo"), (4, "promote"), (3, "prove"), (2, "advance"), (1, "start")]
    assert (why.decided.version, why.decided.actor) == (9, "ann")


def test_the_base_model_needs_no_reason_until_somebody_went_back_to_it() -> None:
    """It was stable when the log began; an undo to it is a decision like any other."""
    log = Log()
    log.add("start", candidate=V1)
    log.add("abort", status="aborted", mirror_bp=0)
    assert log.why().became_stable == []
    log.promoted(V2)
    log.add("undo", status="idle", stable="base", previous=V2, candidate=None)
    assert told(log.why().became_stable) == [(7, "undo")]
