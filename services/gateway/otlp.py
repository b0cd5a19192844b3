"""OTLP/HTTP on the wire: bodies to spans, and the answers that exporters understand.

A body is an ``ExportTraceServiceRequest``, as protobuf or as OTLP's JSON, which is protobuf's own
but for the ids: hex where protobuf has base64.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from ratchet.services.gateway.errors import Refused
from ratchet.services.gateway.http import JSON, too_large
from ratchet.services.rules.span import Span, SpanEvent

PROTOBUF = b"application/x-protobuf"
MEDIA_TYPES = (PROTOBUF, JSON)
_GZIP = 16 + zlib.MAX_WBITS


def media_type(headers: Mapping[bytes, bytes]) -> bytes:
    """The body's type, which is the answer's too.

    Raises:
        Refused: 415, neither of OTLP's two.
    """
    found = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if found not in MEDIA_TYPES:
        allowed = b" or ".join(MEDIA_TYPES).decode()
        raise _unsupported("content-type", f"{found.decode('latin-1')!r}; allowed: {allowed}")
    return found


def _unsupported(header: str, problem: str) -> Refused:
    return Refused(415, f"{header}: {problem}", param=header, code="unsupported_media_type")


def _undecodable(problem: object) -> Refused:
    return Refused(400, f"body: no ExportTraceServiceRequest: {problem}"[:500], param="body", code="invalid_body")


def unpacked(raw: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The body without its compression, of which never more than ``limit`` bytes are made.

    Raises:
        Refused: 413 where it would be more, 415 for any encoding but gzip, 400 where it is no gzip.
    """
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return raw
    if encoding != b"gzip":
        raise _unsupported("content-encoding", f"{encoding.decode('latin-1')!r}; allowed: gzip")
    whole = bytearray()
    while True:  # gzip's members may follow one another
        member = zlib.decompressobj(_GZIP)
        try:
            whole += member.decompress(raw, limit + 1 - len(whole))
        except zlib.error as error:
            raise _undecodable(error) from None
        if len(whole) > limit:
            raise too_large(limit)
        if not member.eof:
            raise _undecodable("its gzip breaks off")
        raw = member.unused_data
        if not raw:
            return bytes(whole)


def read_spans(raw: bytes, media: bytes) -> Iterator[Span]:
    """Decode a body.

    Raises:
        Refused: 400, it does not decode.
    """
    request = ExportTraceServiceRequest()
    try:
        if media == JSON:
            ParseDict(_with_base64_ids(orjson.loads(raw)), request, ignore_unknown_fields=True)
        else:
            request.ParseFromString(raw)
    except (ParseError, DecodeError, ValueError, TypeError, AttributeError) as error:
        # protobuf's JSON reader raises the last two where a list or a text stands for an object
        raise _undecodable(error) from None
    for group in request.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _span(span, resource)


def _with_base64_ids(body: Any) -> Any:
    for group in body.get("resourceSpans") or ():
        for scope in group.get("scopeSpans") or ():
            for span in scope.get("spans") or ():
                for name in ("traceId", "spanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return body


def _span(span: WireSpan, resource: dict[str, Any]) -> Span:
    return Span(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        resource=resource,
        events=[SpanEvent(event.name, event.time_unix_nano, _attributes(event.attributes)) for event in span.events],
        failed=span.status.code == Status.STATUS_CODE_ERROR,
        message=span.status.message,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)


def receipt(media: bytes, rejected: int, message: str) -> bytes:
    """The answer to a request that was taken, but for ``rejected`` spans (0: wholly) that are lost for good."""
    response = ExportTraceServiceResponse()
    if rejected:
        response.partial_success.rejected_spans = rejected
        response.partial_success.error_message = message
    return orjson.dumps(MessageToDict(response)) if media == JSON else bytes(response.SerializeToString())


def failure(media: bytes, message: str) -> bytes:
    """The answer to a request that was not taken: a ``google.rpc.Status``."""
    if media == JSON:
        return orjson.dumps({"message": message})
    # Field 2 of both is a text: these are the bytes of a Status, whose own package we need for nothing else.
    return bytes(ExportTracePartialSuccess(error_message=message).SerializeToString())
