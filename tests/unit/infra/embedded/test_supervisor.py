"""The supervisor, with small real children."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ratchet.infra.embedded.child import last_line
from ratchet.infra.embedded.supervisor import Child, Notice, State, Supervisor
from ratchet.schemas.errors import StartError

SLEEP = "import time; time.sleep(60)"
# one write: `print` makes two, and a kill between them leaves a number without its line's end
SAY_PID = r"import os; os.write(1, b'%d\n' % os.getpid())"


class Said(list[Notice]):
    """Collects notices."""

    def of(self, state: State) -> list[str]:
        """The children that were said to be in a state, in order."""
        return [notice.child for notice in self if notice.state is state]


@pytest.fixture
def said() -> Said:
    """What the supervisor said."""
    return Said()


@pytest.fixture
def supervisor(said: Said) -> Iterator[Supervisor]:
    """A supervisor with short times, stopped in any case."""
    with Supervisor(said.append, tries=2, grace_s=0.5, waiting_every_s=0.0) as supervisor:
        yield supervisor


def child(
    folder: Path, name: str, code: str, ready: Callable[[], bool] = lambda: True, timeout_s: float = 20.0
) -> Child:
    """A Python one-liner as a child."""
    return Child(name, [sys.executable, "-S", "-c", code], folder / f"{name}.log", ready, ready_timeout_s=timeout_s)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Poll; fail after so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def pids(log: Path) -> list[int]:
    """The process ids that children wrote into their log."""
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_children_start_in_order_and_stop_in_reverse(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """Each is ready before the next one starts; all are gone at the end."""
    log = tmp_path / "one.log"
    supervisor.start(child(tmp_path, "one", f"print({os.getpid()}, flush=True); {SLEEP}", lambda: bool(pids(log))))
    supervisor.start(child(tmp_path, "two", SLEEP))
    supervisor.stop()
    assert [(n.child, n.state) for n in said if n.state is not State.WAITING] == [
        ("one", State.STARTING),
        ("one", State.READY),
        ("two", State.STARTING),
        ("two", State.READY),
        ("two", State.STOPPED),
        ("one", State.STOPPED),
    ]
    assert "one" in said.of(State.WAITING)


def test_the_last_child_can_be_stopped_ahead(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """Only if it is the one that is named."""
    for name in ("broker", "gateway"):
        supervisor.start(child(tmp_path, name, SLEEP))
    assert not supervisor.stop_last("broker")
    assert supervisor.stop_last("gateway")
    assert said.of(State.STOPPED) == ["gateway"]


def test_a_child_that_ends_before_it_is_ready_ends_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    """With its status and its own last words."""
    dying = child(tmp_path, "broker", "import sys; sys.exit('the port is taken')", lambda: False)
    with pytest.raises(StartError, match=r"broker ended with status 1 \(the port is taken\); its log is .*broker.log"):
        supervisor.start(dying)


def test_a_child_that_never_answers_ends_the_start(supervisor: Supervisor, tmp_path: Path) -> None:
    """After its own time."""
    with pytest.raises(StartError, match=r"vllm does not answer after 0\.2 s"):
        supervisor.start(child(tmp_path, "vllm", SLEEP, lambda: False, timeout_s=0.2))


def test_a_missing_program_is_one_sentence(supervisor: Supervisor, tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(StartError, match=r"java cannot be started: .*No such file"):
        supervisor.start(Child("java", ["/no/such/java"], tmp_path / "log", lambda: True))


def test_a_dead_child_is_started_again_and_said_once(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """The new process has the same log; the notice says how the old one died."""
    log = tmp_path / "gateway.log"
    gateway = child(tmp_path, "gateway", f"{SAY_PID}; {SLEEP}")
    supervisor.start(gateway)
    until(lambda: len(pids(log)) == 1)
    os.kill(pids(log)[0], signal.SIGSEGV)
    until(lambda: (supervisor.check(), len(pids(log)))[1] == 2)
    supervisor.check()
    assert said.of(State.DIED) == ["gateway"]
    assert "was killed by SIGSEGV" in next(notice.text for notice in said if notice.state is State.DIED)
    assert said.of(State.READY) == ["gateway", "gateway"]


def test_a_child_that_ends_for_good_is_let_go_and_the_others_go_on(
    supervisor: Supervisor, said: Said, tmp_path: Path
) -> None:
    """A status that no restart would change: said once, with the advice, and nobody else is stopped."""
    log = tmp_path / "gateway.log"
    supervisor.start(child(tmp_path, "gateway", f"{SAY_PID}; {SLEEP}"))
    until(lambda: len(pids(log)) == 1)
    flooded = child(tmp_path, "ingest", "import sys; print('a flood'); sys.exit(3)")
    supervisor.start(replace(flooded, final={3: "see `ratchet alerts`"}))
    until(lambda: (supervisor.check(), "ingest" in said.of(State.DIED))[1])
    supervisor.check()
    [text] = [notice.text for notice in said if notice.state is State.DIED]
    assert text == "ended with status 3 (a flood); see `ratchet alerts`"
    assert alive(pids(log)[0])


def test_a_child_that_keeps_dying_is_given_up(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    """After two restarts in a row here, with a clear end."""
    log = tmp_path / "ingest.log"
    supervisor.start(child(tmp_path, "ingest", f"print('no disk', flush=True); {SLEEP}"))

    with pytest.raises(StartError, match=r"ingest was killed by SIGKILL \(no disk\), 3 times in a row"):  # noqa: PT012
        for lives in (1, 2, 3):
            until(lambda lives=lives: log.read_text().count("no disk") == lives)  # type: ignore[misc]
            supervisor._running[0].process.kill()
            supervisor._running[0].process.wait()
            supervisor.check()
    assert said.of(State.DIED) == ["ingest"] * 3


def test_a_long_life_ends_the_row(said: Said, tmp_path: Path) -> None:
    """Deaths an hour apart are never added up."""
    now = [0.0]
    with Supervisor(said.append, tries=1, within_s=60, clock=lambda: now[0]) as supervisor:
        supervisor.start(child(tmp_path, "brain", SLEEP))
        for _ in range(4):
            now[0] += 3600
            supervisor._running[0].process.kill()
            supervisor._running[0].process.wait()
            supervisor.check()
            supervisor.check()
    assert said.of(State.DIED) == ["brain"] * 4


def test_a_restarted_child_that_never_answers_counts_as_dead(said: Said, tmp_path: Path) -> None:
    """A hung process is no better than none."""
    now, healthy = [0.0], [True]
    with Supervisor(said.append, tries=1, clock=lambda: now[0], sleep=lambda _: None, grace_s=-1) as supervisor:
        supervisor.start(child(tmp_path, "vllm", SLEEP, lambda: healthy[0], timeout_s=5))
        healthy[0] = False
        supervisor._running[0].process.kill()
        supervisor._running[0].process.wait()
        supervisor.check()
        now[0] = 6
        with pytest.raises(StartError, match="vllm did not answer within 5 s, 2 times in a row"):
            supervisor.check()


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(supervisor: Supervisor, tmp_path: Path) -> None:
    """The grace over, the whole process group goes."""
    log = tmp_path / "stubborn.log"
    code = (
        "import signal, subprocess, sys, os; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"p = subprocess.Popen([sys.executable, '-S', '-c', {SLEEP!r}]);"
        f"print(os.getpid()); print(p.pid, flush=True); {SLEEP}"
    )
    supervisor.start(child(tmp_path, "stubborn", code, lambda: len(pids(log)) == 2))
    supervisor.stop()
    until(lambda: not any(alive(pid) for pid in pids(log)))


PARENT = """
import sys
from pathlib import Path
from ratchet.infra.embedded.supervisor import Child, Supervisor
folder = Path(sys.argv[1])
sleep = "import time; time.sleep(60)"
code = f"import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', {sleep!r}]); "
code += f"print(os.getpid()); print(p.pid, flush=True); {sleep}"
children = [Child(n, [sys.executable, "-S", "-c", code], folder / f"{n}.log", lambda: True) for n in "ab"]
Supervisor(lambda notice: print(notice.child, notice.state, flush=True)).run(children)
print("end", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_orphan_is_left_however_the_parent_ends(tmp_path: Path, number: signal.Signals) -> None:
    """Children and grandchildren go with it, also with SIGKILL; asked politely it ends by itself."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    until(lambda: sum(len(pids(log)) for log in logs) == 4)
    family = [pid for log in logs for pid in pids(log)]
    assert all(alive(pid) for pid in family)
    parent.send_signal(number)
    output, _ = parent.communicate(timeout=20)
    until(lambda: not any(alive(pid) for pid in family))
    if number is not signal.SIGKILL:
        assert parent.returncode == 0
        assert output.splitlines()[-3:] == ["b stopped", "a stopped", "end"]


def test_the_last_line_of_a_log_is_found(tmp_path: Path) -> None:
    """Blank lines and missing files do not count."""
    log = tmp_path / "log"
    assert last_line(log) == ""
    log.write_text("one\n" * 5000 + "the reason\n\n")
    assert last_line(log) == "the reason"
