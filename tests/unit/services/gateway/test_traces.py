"""`POST /v1/traces`: both of OTLP's forms, bounded unpacking, partial success, idempotence, a full queue."""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import httpx
import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ratchet.infra.kafka.config import MAX_RECORD_BYTES
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Feedback, Inference
from ratchet.schemas.ids import span_inference_id
from ratchet.schemas.policies import TaskPolicy

PROTOBUF, JSON = "application/x-protobuf", "application/json"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def attribute(key: str, value: Any) -> dict[str, Any]:
    """An attribute in OTLP's JSON."""
    return {"key": key, "value": wire(value)}


def wire(value: Any) -> dict[str, Any]:
    """A value in OTLP's JSON, whose integers are texts."""
    if isinstance(value, dict):
        return {"kvlistValue": {"values": [attribute(key, item) for key, item in value.items()]}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [wire(item) for item in value]}}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def span(span_id: str = SPAN, start_ns: int | None = None, **attributes: Any) -> dict[str, Any]:
    """A chat's span of 250 ms in OTLP's JSON; an attribute that is None is left out."""
    start_ns = start_ns or time.time_ns()
    values: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}],
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": "All well"}], "finish_reason": "stop"}]
        ),
    }
    values |= attributes
    return {
        "traceId": TRACE,
        "spanId": span_id,
        "parentSpanId": "00f067aa0ba902b7",
        "name": "chat gpt-x",
        "kind": 3,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + 250_000_000),
        "attributes": [attribute(key, value) for key, value in values.items() if value is not None],
        "status": {"code": 1},
        "somethingNew": {},
    }


def request(*spans: dict[str, Any], service: str = "support") -> dict[str, Any]:
    """An export of one resource."""
    resource = {"attributes": [attribute("service.name", service)]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "t"}, "spans": list(spans)}]}]}


def as_protobuf(value: dict[str, Any]) -> bytes:
    """The same export in protobuf."""
    message = ParseDict(value, ExportTraceServiceRequest(), ignore_unknown_fields=True)
    wire_spans = message.resource_spans[0].scope_spans[0].spans
    for one, given in zip(wire_spans, value["resourceSpans"][0]["scopeSpans"][0]["spans"], strict=True):
        one.trace_id, one.span_id = bytes.fromhex(given["traceId"]), bytes.fromhex(given["spanId"])
    raw: bytes = message.SerializeToString()
    return raw


def post(world: Any, body: bytes, content_type: str = PROTOBUF, **headers: str) -> httpx.Response:
    """One export."""
    headers = {"content-type": content_type} | {key.replace("_", "-"): value for key, value in headers.items()}
    return httpx.post(f"{world.url}/v1/traces", content=body, headers=headers)


def partial(response: httpx.Response) -> tuple[int, str]:
    """What a protobuf answer says was rejected."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == PROTOBUF
    said = ExportTraceServiceResponse.FromString(response.content).partial_success
    return said.rejected_spans, said.error_message


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("form", [PROTOBUF, JSON])
def test_a_span_in_every_form_is_the_same_inference(world: Any, form: str, packed: bool) -> None:
    """Protobuf and JSON, packed or not, give one event; the answer is in the form of the request."""
    started = 1_764_000_000_123_456_789
    value = request(span(start_ns=started), span(span_id="0" * 15 + "1", **{"gen_ai.operation.name": "embeddings"}))
    body = as_protobuf(value) if form == PROTOBUF else json.dumps(value).encode()
    headers = {"content_encoding": "gzip"} if packed else {}
    response = post(world, gzip.compress(body) if packed else body, form, **headers)
    assert response.status_code == 200
    assert response.headers["content-type"] == form
    assert response.content == (b"" if form == PROTOBUF else b"{}")
    (event,) = world.events(Inference, 1)
    assert event.id == span_inference_id(TRACE, SPAN, started)
    assert event.request.messages == [{"role": "user", "content": "Hello"}]
    assert event.request.params == {"temperature": 0.5}
    assert (event.response.content, event.prompt_tokens, event.latency_ms) == ("All well", 11, 250.0)
    assert (event.tags["trace_id"], event.tags["span_id"]) == (TRACE, SPAN)
    world.await_metric('ratchet_spans_total{outcome="ignored"} 1.0')
    world.await_metric('ratchet_spans_total{outcome="taken"} 1.0')


def test_the_same_export_again_is_the_same_inference(world: Any) -> None:
    """An exporter that sends a batch again gives the same ids, so the rows replace themselves."""
    body = as_protobuf(request(span()))
    assert [partial(post(world, body)) for _ in range(2)] == [(0, "")] * 2
    first, second = world.events(Inference, 2)
    assert first == second


@pytest.mark.parametrize("form", [PROTOBUF, JSON])
def test_bad_spans_are_rejected_and_good_ones_kept(world: Any, form: str) -> None:
    """A partial success counts the rejected spans and says why, once a reason; the exporter won't send them again."""
    silent = {"gen_ai.input.messages": None}
    spans = [span("0" * 15 + str(number), **silent) for number in (1, 2)]
    value = request(*spans, span(), span("0" * 15 + "3", **{"ratchet.task": "nothing"}))
    response = post(world, as_protobuf(value) if form == PROTOBUF else json.dumps(value).encode(), form)
    if form == PROTOBUF:
        rejected, message = partial(response)
    else:
        said = response.json()["partialSuccess"]
        rejected, message = int(said["rejectedSpans"]), said["errorMessage"]
        assert isinstance(said["rejectedSpans"], str)  # as protobuf's JSON has 64-bit integers
    assert rejected == 3
    assert "2 × no messages: switch on content capture" in message
    assert "1 × ratchet.task: 'nothing' is not declared; allowed: bare, support" in message
    assert len(world.events(Inference, 1)) == 1
    world.await_metric('ratchet_spans_total{outcome="rejected"} 3.0')


def test_a_span_too_large_for_kafka_is_rejected(world: Any) -> None:
    """An event above Kafka's limit is lost alone, and the exporter is told."""
    large = span(
        "0" * 15 + "1", **{"gen_ai.output.messages": [{"role": "assistant", "content": "x" * MAX_RECORD_BYTES}]}
    )
    rejected, message = partial(post(world, as_protobuf(request(large, span()))))
    assert (rejected, "too large" in message) == (1, True)
    assert len(world.events(Inference, 1)) == 1


def test_feedback_knows_a_spans_task(world: Any) -> None:
    """Feedback on a span's derived id, or on its conversation, needs no task."""
    one = span(**{"gen_ai.conversation.id": "c-1"})
    assert partial(post(world, as_protobuf(request(one)))) == (0, "")
    id = span_inference_id(TRACE, SPAN, int(one["startTimeUnixNano"]))
    for target in ({"inference_id": id}, {"conversation_id": "c-1"}):
        answer = httpx.post(f"{world.url}/v1/feedback", json=target | {"kind": "thumb", "value": True})
        assert answer.status_code == 202, answer.text
    assert {event.task for event in world.events(Feedback, 2)} == {"support"}


@pytest.mark.parametrize(
    ("form", "body"),
    [
        (PROTOBUF, b"\xff\xff"),
        (PROTOBUF, json.dumps(request(span())).encode()),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'{"resourceSpans": "x"}'),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}'),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": {"a": 1}}]}]}]}'),
        (JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "-1"}]}]}]}'),
    ],
)
def test_what_does_not_decode(refusing: Any, form: str, body: bytes) -> None:
    """400, with a Status in the request's form; the exporter won't send it again."""
    response = post(refusing, body, form)
    assert response.status_code == 400
    assert response.headers["content-type"] == form
    if form == JSON:
        message = response.json()["message"]
    else:
        message = ExportTracePartialSuccess.FromString(response.content).error_message  # field 2 of a Status too
    assert message.startswith("body: no ExportTraceServiceRequest")


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        ({"content_type": "text/plain"}, "content-type"),
        ({"content_type": ""}, "content-type"),
    ],
)
def test_other_types_are_refused(refusing: Any, headers: dict[str, str], param: str) -> None:
    """415 for anything but OTLP's two forms, naming the header."""
    response = post(refusing, b"", **headers)
    assert response.status_code == 415
    assert response.json()["error"]["param"] == param


def test_other_encodings_are_refused(refusing: Any) -> None:
    """415 for any packing but gzip; 400 for a gzip that is none or breaks off."""
    body = as_protobuf(request(span()))
    assert post(refusing, body, content_encoding="zstd").status_code == 415
    assert post(refusing, body, content_encoding="gzip").status_code == 400
    assert post(refusing, gzip.compress(body)[:-9], content_encoding="gzip").status_code == 400


def test_an_export_of_nothing_is_a_success(refusing: Any) -> None:
    """An empty request is answered 200 with nothing rejected, as the protocol asks; a type may have parameters."""
    assert partial(post(refusing, b"")) == (0, "")
    response = post(refusing, b"{}", f"{JSON}; charset=utf-8", content_encoding="identity")
    assert (response.status_code, response.content) == (200, b"{}")


def test_a_bomb_is_refused(serve: Any) -> None:
    """The limit holds for what a body unpacks to, in one gzip member or in many; nothing beyond it is made."""
    world = serve(max_body_bytes=100_000)
    for body in (gzip.compress(b"\x00" * 2**26), gzip.compress(b"\x00" * 60_000) * 2, b"\x00" * 100_001):
        encoding = {"content_encoding": "gzip"} if body[:2] == b"\x1f\x8b" else {}
        assert post(world, body, **encoding).status_code == 413
    assert partial(post(world, gzip.compress(as_protobuf(request(span()))), content_encoding="gzip")) == (0, "")


def test_a_full_queue_asks_for_the_batch_again(serve: Any) -> None:
    """503, which exporters try again; what was taken the first time has the same ids the second time."""
    publisher = MemoryPublisher(queue_records=1)
    publisher.away = True
    world = serve(publisher=publisher, tasks={"support": TaskPolicy()})
    body = as_protobuf(request(span(), span("0" * 15 + "1")))
    response = post(world, body)
    assert response.status_code == 503
    assert b"send it again" in response.content
    publisher.away = False
    publisher.flush(0)
    publisher._queue_records = 10
    assert partial(post(world, body)) == (0, "")
    assert len({event.id for event in world.events(Inference, 3)}) == 2
