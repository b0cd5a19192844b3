"""What was asked and answered, out of a span, in OpenAI's form; pure.

Instrumentations have put it in four places over the years, tried here from the newest to the oldest:

1. ``gen_ai.input.messages``, ``gen_ai.output.messages`` and ``gen_ai.system_instructions``: roles and
   parts, as structured values or as JSON in a text;
2. ``gen_ai.prompt.0.role``, ``gen_ai.completion.0.content`` and so on (OpenLLMetry);
3. ``gen_ai.prompt`` and ``gen_ai.completion``: a text, or messages as JSON;
4. span events: one ``gen_ai.user.message`` (``system``, ``assistant``, ``tool``) a message and one
   ``gen_ai.choice`` an answer.

The attributes of 1 and 3 may also stand on an event made for them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from ratchet.services.rules.span import BadSpan, Span, SpanEvent

Message = dict[str, Any]

_CARRIERS = ("gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.client.inference.operation.details")
_EVENTS = {f"gen_ai.{role}.message": role for role in ("system", "user", "assistant", "tool")}
_CHOICE = "gen_ai.choice"
_OPENAI_PARTS = ("text", "image_url", "input_audio", "file")
_MESSAGE_KEYS = ("content", "name", "tool_calls", "tool_call_id", "finish_reason")
_CALL_FIELD = re.compile(r"^tool_calls\.([0-9]{1,4})\.(?:function\.)?(id|name|arguments)$")


def conversation(span: Span) -> tuple[list[Message], Message | None]:
    """Find the request's messages and the first choice, which may have a ``finish_reason``.

    Raises:
        BadSpan: there are messages, in no form that any convention knows.
    """
    attributes: dict[str, Any] = {}
    for event in span.events:
        if event.name in _CARRIERS:
            attributes |= event.attributes
    attributes |= span.attributes
    asked = (
        _structured(attributes, "gen_ai.input.messages")
        or _indexed(attributes, "gen_ai.prompt", "user")
        or _plain(attributes, "gen_ai.prompt", "user")
        or [message for event in span.events if event.name in _EVENTS for message in _said(event)]
    )
    answers = (
        _structured(attributes, "gen_ai.output.messages")
        or _indexed(attributes, "gen_ai.completion", "assistant")
        or _plain(attributes, "gen_ai.completion", "assistant")
        or [message for event in span.events if event.name == _CHOICE for message in _choice(event)]
    )
    return [*_instructions(attributes), *asked], answers[0] if answers else None


def tools(span: Span) -> list[dict[str, Any]] | None:
    """The tools that the model was offered, in OpenAI's form, or None.

    Raises:
        BadSpan: ``gen_ai.tool.definitions`` is no list of objects.
    """
    name = "gen_ai.tool.definitions"
    found = _objects(_decoded(span.attributes.get(name), name) or [], name)
    if not found:
        found = [{**tool, "type": "function"} for tool in _grouped(span.attributes, "llm.request.functions").values()]
    return [_tool(tool) for tool in found] or None


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function" or "function" in tool:
        return tool
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool.get(key) is not None}
    if isinstance(function.get("parameters"), str):
        function["parameters"] = _decoded(function["parameters"], "parameters of a tool")
    return {"type": "function", "function": function}


def _decoded(value: Any, where: str) -> Any:
    """A structured value as it is; a text is JSON."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise BadSpan(f"{where}: a text that is not JSON") from None


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadSpan(f"{where}: allowed: a list of objects")
    return list(value)


def _structured(attributes: Mapping[str, Any], name: str) -> list[Message]:
    value = _decoded(attributes.get(name), name)
    return [message for item in _objects(value or [], name) for message in _message(item, name)]


def _instructions(attributes: Mapping[str, Any]) -> list[Message]:
    name = "gen_ai.system_instructions"
    value = attributes.get(name)
    if not value:
        return []
    if isinstance(value, str) and not value.lstrip().startswith("["):
        return [{"role": "system", "content": value}]
    return _message({"role": "system", "parts": _decoded(value, name)}, name)


def _message(value: dict[str, Any], where: str) -> list[Message]:
    """One message in OpenAI's form; several where it carries the answers of several tools."""
    role = value.get("role")
    if not isinstance(role, str) or not role:
        raise BadSpan(f"{where}: a message without role")
    if "parts" not in value:
        return [{"role": role} | {key: value[key] for key in _MESSAGE_KEYS if value.get(key) is not None}]
    content: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    answers: list[Message] = []
    for part in _objects(value["parts"], where):
        kind = part.get("type")
        if kind == "text":
            content.append({"type": "text", "text": _text(part.get("content"))})
        elif kind == "tool_call":
            calls.append(_call(part))
        elif kind == "tool_call_response":
            said = _text(part.get("response", part.get("result")))
            answers.append({"role": "tool", "content": said} | ({"tool_call_id": part["id"]} if part.get("id") else {}))
        elif kind != "reasoning":  # which is no part of what the model said
            content.append(_media(part))
    if answers and not content and not calls:
        return answers
    message: Message = {"role": role, "content": _joined(content, empty=None if role == "assistant" else "")}
    message |= {key: value[key] for key in ("name", "finish_reason") if value.get(key) is not None}
    return [message | ({"tool_calls": calls} if calls else {}), *answers]


def _joined(content: list[dict[str, Any]], empty: str | None) -> str | list[dict[str, Any]] | None:
    if not content:
        return empty
    texts = [part["text"] for part in content if part.get("type") == "text" and "text" in part]
    return "\n".join(texts) if len(texts) == len(content) else content


def _media(part: dict[str, Any]) -> dict[str, Any]:
    """An image as OpenAI has it; anything else as it came."""
    if part.get("modality") == "image" and part.get("type") == "uri":
        return {"type": "image_url", "image_url": {"url": part.get("uri")}}
    if part.get("modality") == "image" and part.get("type") == "blob":
        url = f"data:{part.get('mime_type') or 'image/png'};base64,{part.get('content')}"
        return {"type": "image_url", "image_url": {"url": url}}
    return part


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _call(part: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": _text(part.get("name")), "arguments": _text(part.get("arguments")) or "{}"}
    return ({"id": part["id"]} if part.get("id") else {}) | {"type": "function", "function": function}


def _grouped(attributes: Mapping[str, Any], prefix: str) -> dict[int, dict[str, Any]]:
    """Attributes ``prefix.N.field`` as objects, in the order of N."""
    pattern = re.compile(rf"^{re.escape(prefix)}\.([0-9]{{1,4}})\.(.+)$")
    found: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        if match := pattern.match(key):
            found.setdefault(int(match[1]), {})[match[2]] = value
    return dict(sorted(found.items()))


def _indexed(attributes: Mapping[str, Any], prefix: str, role: str) -> list[Message]:
    messages: list[Message] = []
    for fields in _grouped(attributes, prefix).values():
        calls: dict[int, dict[str, Any]] = {}
        for key, value in fields.items():
            if match := _CALL_FIELD.match(key):
                calls.setdefault(int(match[1]), {})[match[2]] = value
        # the prompt of a text completion stands under the role's own name
        content = fields.get("content", fields.get(role))
        message = {"role": role, **fields, "content": _openai_parts(content)}
        message["tool_calls"] = [_call(calls[number]) for number in sorted(calls)] or None
        messages += _message({key: message.get(key) for key in ("role", *_MESSAGE_KEYS)}, prefix)
    return messages


def _openai_parts(content: Any) -> Any:
    """Content parts that were written as JSON into a text attribute; any other text stays one."""
    if isinstance(content, str) and content.startswith("[{"):
        try:
            value = orjson.loads(content)
        except orjson.JSONDecodeError:
            return content
        if all(isinstance(part, dict) and part.get("type") in _OPENAI_PARTS for part in value):
            return value
    return content


def _plain(attributes: Mapping[str, Any], name: str, role: str) -> list[Message]:
    value = decoded = attributes.get(name)
    if not value:
        return []
    if isinstance(value, str):
        try:
            decoded = orjson.loads(value)
        except orjson.JSONDecodeError:
            decoded = None
    items = decoded if isinstance(decoded, list) else [decoded]
    # a text that happens to be JSON is still a text: only messages are taken for messages
    if isinstance(value, str) and not (items and all(isinstance(item, dict) and "role" in item for item in items)):
        return [{"role": role, "content": value}]
    return [message for item in _objects(items, name) for message in _message(item, name)]


def _body(event: SpanEvent) -> Mapping[str, Any]:
    """An event's body: JSON in one attribute (the first conventions), or the attributes themselves."""
    name = "gen_ai.event.content"
    if name not in event.attributes:
        return event.attributes
    body = _decoded(event.attributes[name], f"{event.name}: {name}")
    if not isinstance(body, dict):
        raise BadSpan(f"{event.name}: {name}: allowed: an object")
    return body


def _spoken(body: Mapping[str, Any], role: str, where: str) -> Iterable[Message]:
    message: Message = {"role": role} | {key: body.get(key) for key in ("role", *_MESSAGE_KEYS) if body.get(key)}
    if isinstance(message.get("tool_calls"), str):
        message["tool_calls"] = _decoded(message["tool_calls"], where)
    if role == "tool" and body.get("id"):
        message.setdefault("tool_call_id", body["id"])
    return _message(message, where)


def _said(event: SpanEvent) -> Iterable[Message]:
    return _spoken(_body(event), _EVENTS[event.name], event.name)


def _choice(event: SpanEvent) -> Iterable[Message]:
    body = _body(event)
    message = body.get("message")
    if isinstance(message, str):
        try:
            message = orjson.loads(message)
        except orjson.JSONDecodeError:
            message = {"content": message}
        if not isinstance(message, dict):
            message = {"content": body["message"]}
    if not isinstance(message, dict):
        message = {}
    outer = {key: body.get(key) for key in ("content", "tool_calls", "finish_reason")}
    return _spoken({**outer, **message}, "assistant", event.name)
