from __future__ import annotations

import asyncio
import uuid
from typing import Any

from ratchet.consumers import checks, judge, pairs
from ratchet.infra.clickhouse.client import connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.judge import JudgeClient
from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.infra.kafka.publisher import KafkaPublisher
from ratchet.infra.kafka.stream import make_broker
from ratchet.schemas.checks import RequiredFieldsCheck
from ratchet.schemas.events import Feedback, Inference, Request, Response, Score
from ratchet.schemas.ids import uuid7
from ratchet.schemas.judging import JudgePolicy
from ratchet.schemas.pairing_policy import PairingPolicy
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.rows import row


async def test_checks_judge_and_pairs_behind_kafka(kafka: Any, clickhouse: str) -> None:
    """Events on the topics become check scores, a judge's abstention (its endpoint is away) and a built pair."""
    task = f"t-{uuid.uuid4().hex[:12]}"
    policy = TaskPolicy(
        checks=[RequiredFieldsCheck(name="json", fields=["order"])],
        judge=JudgePolicy(fraction=1.0),
        pairing=PairingPolicy(holdout=0),
    )
    answer = Inference(
        id=uuid7(1, uuid.uuid4().bytes),
        at="2026-11-01T00:00:00Z",
        task=task,
        adapter="base",
        base_model="tiny",
        request=Request(messages=[{"role": "user", "content": "hi"}]),
        response=Response(content="no json"),
        status="ok",
        latency_ms=1,
        source="http",
        stage="stable",
    )
    said = Feedback(
        id=uuid7(2, uuid.uuid4().bytes),
        at="2026-11-01T00:01:00Z",
        task=task,
        inference_id=answer.id,
        kind="correction",
        value='{"order": "1"}',
        source="http",
    )
    ensure_topics(kafka.bootstrap)
    producer = KafkaPublisher(kafka.bootstrap, not kafka.embedded, "test")
    producer.publish(answer)
    producer.publish(said)
    assert producer.flush(30) == 0
    producer.close()
    written: asyncio.Queue[str] = asyncio.Queue()
    out = MemoryPublisher()
    broker = make_broker(kafka.bootstrap)
    with connect(clickhouse) as store:
        migrate(store)
        for event in (answer, said):
            found = row(event)
            assert found is not None
            store.insert_rows(found[0], [found[1]])
        checks.register(broker, {task: policy}, out)
        away = JudgeClient("http://127.0.0.1:9/v1", "away", retries=0)
        judge.register(broker, {task: policy}, out, {"default": away})
        builder = pairs.Pairs(store, {task: policy}, written.put)
        pairs.register(broker, builder, out)
        await broker.start()
        try:
            async with asyncio.timeout(60):
                while written.empty():
                    await builder.flush()
                    await asyncio.sleep(0.05)
                assert await written.get() == task
                while len({s.kind for s in out.events if isinstance(s, Score)}) < 2:  # noqa: ASYNC110 - a list tells nobody
                    await asyncio.sleep(0.05)
        finally:
            await broker.stop()
        (pair,) = store.query("pair_counts", task=task)
    assert (pair["status"], pair["source"], pair["n"]) == ("built", "correction", 1)
    verdicts = {score.kind: score.verdict for score in out.events if isinstance(score, Score)}
    assert verdicts == {"check": "fail", "pointwise": "abstain"}
