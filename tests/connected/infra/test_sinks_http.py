"""What alerts are sent over: TLS that verifies the name though a checked address is dialled, and one lookup."""

from __future__ import annotations

import socket
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from receiver import Receiver

from ratchet.infra.clock import now
from ratchet.infra.sinks.http import post


def certificate(folder: Path) -> Path:
    """A certificate for localhost that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key: Any = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    until = now() + timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now(), until)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


async def send(url: str) -> str:
    """Post a document, and say the verdict and why."""
    outcome = await post(url, "", b"{}", {}, timeout_s=10, allow_private=True)
    return f"{outcome.verdict}: {outcome.says}"


async def test_tls_verifies_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The certificate is held to the name in the URL, by the machine's authorities; another name is not sent to."""
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with Receiver() as receiver:
        receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
        assert (await send(f"https://localhost:{receiver.port}")).startswith("later: ConnectError")
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert await send(f"https://localhost:{receiver.port}") == "taken: 200 ok"
        assert (await send(f"https://127.0.0.1:{receiver.port}")).startswith("later: ConnectError")
        assert len(receiver.came) == 1


async def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is connected to: a name that answers differently the second time is not asked again."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        asked.append(str(host))
        return real("127.0.0.1", port, *more, **named)

    with Receiver() as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        assert await send(f"http://hooks.example:{receiver.port}") == "taken: 200 ok"
        assert asked == ["hooks.example"]
        assert receiver.came[0].headers["host"] == f"hooks.example:{receiver.port}"


async def test_one_address_inside_among_good_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads outside and inside at once is not sent to at all."""

    def lookup(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*stream, ("93.184.216.34", port)), (*stream, ("169.254.169.254", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    said = await send("http://hooks.example")
    assert said == "later: not sent: hooks.example is 169.254.169.254, an address of a cloud's metadata"
