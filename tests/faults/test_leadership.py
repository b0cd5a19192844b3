"""A leader that is paused past its session and wakes up: the broker refuses it before it acts."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from typing import Any

from ratchet.infra.kafka.admin import ensure_topics
from ratchet.infra.kafka.leadership import SESSION_S, Leadership
from ratchet.schemas.topics import ROLLOUT

MEMBER = """
import sys, time
from ratchet.infra.kafka.leadership import Leadership
from ratchet.schemas.errors import NotLeading
from ratchet.schemas.topics import ROLLOUT
one = Leadership(sys.argv[1], ROLLOUT, sys.argv[2])
one.start()
while True:
    asked = time.time()
    try:
        print("leads" if one.confirm(20) >= 0 else "", asked, flush=True)
    except NotLeading:
        print("follows", asked, flush=True)
    time.sleep(0.05)
"""


def test_one_that_was_paused_is_refused_when_it_wakes(make_world: Any, each_broker: str) -> None:
    """SIGSTOP past the session: another one leads, and the sleeper's first question is refused."""
    world = make_world(each_broker)
    world.broker.start()
    ensure_topics(world.bootstrap)
    argv = [sys.executable, "-c", MEMBER, world.bootstrap, "paused"]
    second = Leadership(world.bootstrap, ROLLOUT, "paused")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as sleeper:
        assert sleeper.stdout is not None
        try:
            said = map(str.split, sleeper.stdout)
            next(word for word, _ in said if word == "leads")
            second.start()
            sleeper.send_signal(signal.SIGSTOP)
            stopped = time.time()
            assert second.wait(10 * SESSION_S)
            sleeper.send_signal(signal.SIGCONT)
            woken = [word for word, asked in itertools.islice(said, 40) if float(asked) > stopped]
            woken += [word for word, _ in itertools.islice(said, 20)]
            assert set(woken) == {"follows"}
            assert second.confirm(20) >= 0
        finally:
            sleeper.kill()
            second.close()
