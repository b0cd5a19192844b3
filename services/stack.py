"""All parts on this machine, supervised: what `ratchet up` and `ratchet demo` start.

A part that the settings name elsewhere (a Kafka, a ClickHouse, a vLLM) is not started here.
The embedded broker forgets everything at a restart, so whenever it comes up, topics are made
and the state topics are seeded again from ClickHouse; a clean stop ends the gateway first and
lets the consumers finish before they end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from ratchet.infra.embedded.ports import port_taken
from ratchet.infra.embedded.supervisor import Child, Notice, State, Supervisor
from ratchet.infra.settings import Settings
from ratchet.schemas.errors import BrokerError, FloodError, StartError, StoreError
from ratchet.services import wiring

Tell = Callable[[str], None]
DRAINED_GROUPS = ("checks", "judge", "pairs", "alerts", "ingest")
DRAIN_S = 30.0
VLLM_S = 240.0
FLOODED = (
    "it is not started again, the rest goes on: see `ratchet alerts`, "
    "then run `ratchet consume ingest` beside this or start anew"
)


class Stack:
    """The running parts; a context manager that stops them.

    Args:
        settings: whose addresses and tasks.
        tell: takes a line that stays (a part is up, died, was started again).
        running: takes a line that a later one replaces (what is being waited for).
    """

    def __init__(self, settings: Settings, tell: Tell, running: Tell) -> None:
        self.settings = settings
        self._tell, self._running_line = tell, running
        self.supervisor = Supervisor(self._notice)
        self._vllm_ready: Callable[[], bool] | None = None
        self._failure: StartError | None = None
        self._watching: threading.Thread | None = None

    def start(self) -> None:
        """Start every part and return when all serve.

        Raises:
            StartError: one did not; the sentence says which and where its log is.
        """
        s = self.settings
        if not s.tasks:
            raise StartError("no task is declared: write [tasks.<name>] in ratchet.toml (examples/support shows one)")
        if port_taken(s.gateway_host, s.gateway_port):
            raise StartError(f"gateway_port {s.gateway_port} is taken; set another (RATCHET_GATEWAY_PORT)")
        if port_taken(s.api_host, s.api_port):
            raise StartError(f"api_port {s.api_port} is taken; set another (RATCHET_API_PORT)")
        make_home(s.home)
        # vLLM takes longest, so it starts first and is waited for last
        if not s.vllm_urls:
            self._start_vllm()
        if s.clickhouse_dsn is None:
            self.supervisor.start(self._clickhouse())
        if s.kafka_bootstrap is None:
            self.supervisor.start(self._broker())
        else:
            wiring.prepare(s)
        for name, arguments in (
            ("ingest", ["consume", "ingest"]),
            ("consumers", ["consume", "checks", "judge", "pairs", "drift"]),
            ("alerts", ["consume", "alerts"]),
            ("controller", ["control"]),
            ("api", ["api"]),
            ("train-worker", ["train-worker"]),
            *([("tracking", ["consume", "tracking"])] if s.tracking else []),
        ):
            final = {FloodError.status: FLOODED} if name == "ingest" else {}
            self.supervisor.start(self._own(name, arguments, lambda: True, final))
        if self._vllm_ready is not None:
            self._await_vllm(self._vllm_ready)
        self.supervisor.start(self._own("gateway", ["gateway"], lambda: wiring.gateway_ready(s)))

    def watch_in_background(self) -> None:
        """Keep the parts alive from a thread; `check` raises what ended that."""

        def watch() -> None:
            try:
                self.supervisor.watch()
            except StartError as error:
                self._failure = error

        self._watching = threading.Thread(target=watch, name="supervisor", daemon=True)
        self._watching.start()

    def check(self) -> None:
        """Raise what made the supervisor give up, if anything did."""
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Stop the gateway, let the consumers finish, stop the rest."""
        self.supervisor.request_stop()
        if self._watching is not None:
            self._watching.join()
        if self._failure is None and self.supervisor.stop_last("gateway"):
            self._drain()
        self.supervisor.stop()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _drain(self) -> None:
        """Wait until the consumers have acknowledged everything, so that a memory broker loses nothing."""
        from ratchet.infra.kafka.admin import lag

        deadline = time.monotonic() + DRAIN_S
        try:
            # ingest is last in the list: the others publish what it has to store
            while (left := {group: lag(self.settings.kafka, group) for group in DRAINED_GROUPS}) and any(left.values()):
                behind = ", ".join(f"{group} {n}" for group, n in left.items() if n)
                if time.monotonic() > deadline:
                    self._tell(f"stopping although consumers are behind: {behind}")
                    return
                self._running_line(f"consumers finish: {behind}")
                time.sleep(0.2)
        except BrokerError as error:
            self._tell(f"stopping without waiting for the consumers: {error}")

    def _own(
        self, name: str, arguments: list[str], ready: Callable[[], bool], final: Mapping[int, str] | None = None
    ) -> Child:
        argv = [sys.executable, "-m", "ratchet.services.cli.main", *arguments]
        return Child(
            name=name, argv=argv, log_path=self._log(name), ready=ready, env=self._environment(), final=final or {}
        )

    def _environment(self) -> dict[str, str]:
        """Children read the same settings, from wherever they run."""
        config = self.settings.config_dir / "ratchet.toml"
        own = {"RATCHET_CONFIG": str(config.absolute())} if config.is_file() else {}
        return dict(os.environ) | own | {"RATCHET_HOME": str(self.settings.home), "PYTHONUNBUFFERED": "1"}

    def _log(self, name: str) -> Path:
        return self.settings.home / "logs" / f"{name}.log"

    def _clickhouse(self) -> Child:
        from ratchet.infra.embedded.clickhouse_server import command

        s = self.settings
        argv = command(s.embedded.clickhouse_port, s.home / "clickhouse")
        if port_taken("127.0.0.1", s.embedded.clickhouse_port):
            raise StartError(f"embedded.clickhouse_port {s.embedded.clickhouse_port} is taken; set another")
        return Child("clickhouse", argv, self._log("clickhouse"), lambda: wiring.clickhouse_ready(s))

    def _broker(self) -> Child:
        from ratchet.infra.embedded.broker import BrokerProbe, broker_command

        s = self.settings
        probe = BrokerProbe(s.kafka)

        def ready() -> bool:
            """At every start, a restart after a crash included: make the topics and seed the state."""
            if not probe():
                return False
            try:
                wiring.prepare(s)
            except (BrokerError, StoreError):
                return False  # asked again; the supervisor's limit ends it
            return True

        return Child("broker", broker_command(s.embedded.kafka_port), self._log("broker"), ready)

    def _start_vllm(self) -> None:
        command, environment, ready = wiring.vllm_command(self.settings)
        child = Child("vllm", command, self._log("vllm"), lambda: True, env=dict(os.environ) | environment)
        self.supervisor.start(child)
        self._vllm_ready = ready

    def _await_vllm(self, ready: Callable[[], bool]) -> None:
        start = time.monotonic()
        while not ready():
            self.supervisor.check()
            seconds = time.monotonic() - start
            if seconds > VLLM_S:
                raise StartError(f"vllm does not answer after {VLLM_S:.0f} s; its log is {self._log('vllm')}")
            if self.supervisor.stopping:
                raise StartError("stopped while vllm was starting")
            self._running_line(f"vLLM is starting: {seconds:.0f} s (about 45 s on 2 cores)")
            time.sleep(0.5)
        self._tell("vllm answers")

    def _notice(self, notice: Notice) -> None:
        match notice.state:
            case State.READY if notice.child != "vllm":
                self._tell(f"{notice.child} is up ({notice.seconds:.1f} s)")
            case State.DIED:
                self._tell(f"{notice.child} {notice.text}")
            case State.STARTING | State.WAITING:
                self._running_line(f"{notice.child} is starting: {notice.seconds:.0f} s")
            case _:
                pass


def make_home(home: Path) -> None:
    """Make the folder that everything is kept in.

    Raises:
        StartError: it cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".writable"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        raise StartError(f"home {home} cannot be written: {error.strerror}") from None


def up(settings: Settings) -> int:
    """Run `ratchet up` until SIGINT or SIGTERM; the exit status."""
    from ratchet.services.demo.say import Say

    say = Say()
    stack = Stack(settings, tell=say.line, running=say.running)
    with stack.supervisor.signals(), stack:
        try:
            stack.start()
            say.line(
                f"Ratchet is up: {settings.gateway}/v1 serves {', '.join(settings.tasks)}; Ctrl-C stops every part"
            )
            stack.supervisor.watch()
        except StartError:
            # a Ctrl-C while a part was starting is no failure
            if not stack.supervisor.stopping:
                raise
    say.line("every part has stopped")
    return 0
