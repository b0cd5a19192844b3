"""An app with the real OpenTelemetry SDK and the real OpenAI instrumentations exports to a served gateway.

Both instrumentations of PyPI that put messages on spans: ``opentelemetry-instrumentation-openai``
does by default, ``opentelemetry-instrumentation-openai-v2`` once it is told to (its older form puts
them on log events, which are not taken here).
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Inference
from ratchet.schemas.policies import TaskPolicy
from ratchet.services.gateway.assemble import create_app
from ratchet.services.gateway.routes import RoutingTables

pytestmark = pytest.mark.connected

PATIENCE_S = 60.0
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How is it?"}]
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
APP = """
import importlib, json, sys
import openai
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from ratchet.schemas.ids import span_inference_id

class Ids(SpanProcessor):
    def on_end(self, span):
        context = span.context
        print(span_inference_id(f"{context.trace_id:032x}", f"{context.span_id:016x}", span.start_time))

instrumentation, upstream, asked, tool = sys.argv[1:]
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
provider.add_span_processor(Ids())
trace.set_tracer_provider(provider)
importlib.import_module(f"opentelemetry.instrumentation.{instrumentation}").OpenAIInstrumentor().instrument()
client = openai.OpenAI(base_url=upstream, api_key="none", max_retries=0)
ask = {"model": "gpt-x", "messages": json.loads(asked), "temperature": 0.5, "max_tokens": 20}
with trace.get_tracer("app").start_as_current_span("handle a request"):
    client.chat.completions.create(**ask)
    for chunk in client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}):
        pass
    client.chat.completions.create(**ask, tools=[json.loads(tool)])
    try:
        client.chat.completions.create(**ask | {"model": "broken"})
    except openai.InternalServerError:
        pass
provider.shutdown()
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    """A model server that answers whole, in a stream, with a tool call, or not."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usage = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        head = {"id": "x", "created": 1, "model": f"{body['model']}-0613"}
        if body["model"] == "broken":
            self.reply(500, "application/json", json.dumps({"error": {"message": "out of memory"}}))
        elif body.get("stream"):
            deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"content": "All"}, {"content": " well"}, {}]
            choices = [{"index": 0, "delta": delta, "finish_reason": None if delta else "stop"} for delta in deltas]
            chunks = [{"choices": [choice]} for choice in choices] + [{"choices": [], "usage": usage}]
            lines = [json.dumps(head | {"object": "chat.completion.chunk"} | chunk) for chunk in chunks]
            self.reply(200, "text/event-stream", "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]))
        else:
            call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"order": 7}'}}
            message = {"content": None, "tool_calls": [call]} if body.get("tools") else {"content": "All well"}
            finish = "tool_calls" if body.get("tools") else "stop"
            choice = {"index": 0, "message": {"role": "assistant"} | message, "finish_reason": finish}
            answer = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
            self.reply(200, "application/json", json.dumps(answer))

    def reply(self, status: int, content_type: str, text: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@dataclass
class World:
    """A served gateway, and a model server that it has nothing to do with."""

    url: str
    upstream: str
    publisher: MemoryPublisher

    def run_app(self, instrumentation: str, **environment: str) -> list[str]:
        """Run the app to its end; returns the ids that it worked out for its spans."""
        settings = {"OTEL_SERVICE_NAME": "support", "OTEL_EXPORTER_OTLP_ENDPOINT": self.url} | environment
        ended = subprocess.run(
            [sys.executable, "-c", APP, instrumentation, self.upstream, json.dumps(ASKED), json.dumps(TOOL)],
            env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | settings,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.split()

    def inferences(self) -> list[Inference]:
        """What came of its spans, in the order of the calls."""
        return sorted((e for e in self.publisher.events if isinstance(e, Inference)), key=lambda event: event.at)


@pytest.fixture
def world() -> Iterator[World]:
    """A gateway with the tasks ``support`` and ``other`` on a port of its own."""
    publisher = MemoryPublisher()
    tasks = {"support": TaskPolicy(), "other": TaskPolicy()}
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        upstream_url = f"http://127.0.0.1:{upstream.server_address[1]}"
        app = create_app(tasks, "tiny", [upstream_url], publisher, RoutingTables())
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        # the listener keeps connections until the gateway takes them
        threads = [
            threading.Thread(target=upstream.serve_forever),
            threading.Thread(target=server.run, kwargs={"sockets": [listener]}),
        ]
        for thread in threads:
            thread.start()
        yield World(url, f"{upstream_url}/v1", publisher)
        server.should_exit = True
        upstream.shutdown()
        for thread in threads:
            thread.join(PATIENCE_S)


@pytest.mark.parametrize(
    ("instrumentation", "environment"),
    [
        ("openai", {"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}),
        (
            "openai_v2",
            {
                "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "span_only",
            },
        ),
    ],
    ids=["openai", "openai-v2"],
)
def test_what_an_instrumented_app_asks_becomes_inferences(
    world: World, instrumentation: str, environment: dict[str, str]
) -> None:
    """Whole, streamed, with tools and failed: messages, answer, tokens, model and status arrive; other spans do not."""
    ids = world.run_app(instrumentation, **environment)
    whole, streamed, called, broken = events = world.inferences()
    assert [event.id for event in events] == ids[:4]  # the fifth is the app's own span, which is no call of a model
    assert {(event.task, event.adapter, event.stage, event.source) for event in events} == {
        ("support", "base", "stable", "otlp")
    }
    for event in events:
        assert event.request.messages == ASKED
        assert event.request.params == {"temperature": 0.5, "max_tokens": 20}
        assert event.tags["provider"] == "openai"
    for event in (whole, streamed):
        assert event.response is not None
        assert (event.response.content, event.response.finish_reason) == ("All well", "stop")
    # openai-v2 2.4b0 says nothing of streaming on the span
    assert (streamed.stream, streamed.ttft_ms is not None) == (instrumentation == "openai",) * 2
    assert called.response is not None
    (call,) = called.response.tool_calls or []
    arguments = json.loads(call["function"].pop("arguments"))
    assert (call, arguments) == ({"id": "c1", "type": "function", "function": {"name": "look_up"}}, {"order": 7})
    assert called.response.finish_reason == "tool_calls"
    for event in (whole, streamed, called):
        assert (event.status, event.base_model) == ("ok", "gpt-x-0613")
        assert (event.prompt_tokens, event.completion_tokens) == (11, 3)
        assert event.latency_ms > 0
    assert (broken.status, broken.response, broken.base_model) == ("error", None, "broken")
    assert "out of memory" in (broken.error or "")
    metrics = httpx.get(f"{world.url}/metrics").text
    assert 'ratchet_spans_total{outcome="ignored"} 1.0' in metrics
    assert 'ratchet_spans_total{outcome="rejected"} 0.0' in metrics


def test_messages_on_log_events_are_asked_for_on_spans(world: World) -> None:
    """Where an instrumentation keeps messages off its spans, they are rejected, visibly, and make no event."""
    world.run_app("openai_v2", OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="true")
    assert world.inferences() == []
    assert 'ratchet_spans_total{outcome="rejected"} 4.0' in httpx.get(f"{world.url}/metrics").text
