"""Clients that do not come to the end of their request are cut off."""

from __future__ import annotations

import json
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from ratchet.services.gateway.patience import patient

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"


def connect(world: Any) -> socket.socket:
    """A bare connection."""
    where = urlsplit(world.url)
    return socket.create_connection((where.hostname, where.port), timeout=10)


def everything(line: socket.socket) -> bytes:
    """All that comes until the server closes."""
    got = b""
    while chunk := line.recv(65536):
        got += chunk
    return got


def test_a_body_that_never_ends_is_408(serve: Any) -> None:
    """Headers and half a body: told why and closed, and others are served meanwhile."""
    world = serve(body_timeout_s=0.3)
    with connect(world) as line:
        line.sendall(HEAD + b"{")
        assert httpx.post(world.url + CHAT, json={"model": "bare", "messages": HELLO}).status_code == 200
        answer = everything(line)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer
    assert b"request_timeout" in answer
    world.await_metric('ratchet_requests_total{code="408",path="/v1/chat/completions"} 1.0')


def test_a_body_that_dribbles_is_408_too(serve: Any) -> None:
    """The limit is for the whole body: a byte now and then does not stretch it."""
    world = serve(body_timeout_s=0.3)
    with connect(world) as line:
        line.sendall(HEAD)
        line.settimeout(0.02)
        deadline = time.monotonic() + 10
        got = b""
        while not got and time.monotonic() < deadline:
            line.sendall(b" ")
            try:
                got = line.recv(65536)
            except TimeoutError:
                continue
    assert got.startswith(b"HTTP/1.1 408 ")


def test_a_client_that_says_nothing_is_closed(serve: Any) -> None:
    """No request, half a header, or a body that goes on after its refusal: the connection ends."""
    world = serve(http=patient(0.3))
    refused = HEAD.replace(b"/v1/chat", b"/nowhere")
    for start in (b"", b"POST /v1/chat", refused):
        with connect(world) as line:
            line.sendall(start)
            answer = everything(line)
        assert answer.startswith(b"HTTP/1.1 404 ") if start == refused else answer == b""


def test_a_long_answer_is_no_slow_request(serve: Any) -> None:
    """Patience ends with requests, not with answers; a connection goes on from request to request."""
    world = serve(http=patient(0.5))
    open_gate = world.hold()
    with httpx.Client() as client:
        body = {"model": "bare", "messages": HELLO, "stream": True}
        with client.stream("POST", world.url + CHAT, json=body) as response:
            chunks = response.iter_text()
            assert "All" in next(chunks)
            time.sleep(0.8)
            open_gate()
            assert "[DONE]" in "".join(chunks)
        assert client.post(world.url + CHAT, json={"model": "bare", "messages": HELLO}).status_code == 200


def test_a_request_that_waits_for_the_answer_before_it_is_not_slow(serve: Any) -> None:
    """A client may send its next request early: that the gateway reads no further meanwhile is not held against it."""
    world = serve(http=patient(0.3))
    open_gate = world.hold()
    body = json.dumps({"model": "bare", "messages": HELLO}).encode()
    head = HEAD.replace(b"1000", str(len(body)).encode())
    with connect(world) as line:
        line.sendall(head + body + head)
        time.sleep(0.8)
        open_gate()
        line.sendall(body)
        got = b""
        while got.count(b"All is well") < 2:
            chunk = line.recv(65536)
            assert chunk, got
            got += chunk
    assert got.count(b"HTTP/1.1 200 ") == 2
