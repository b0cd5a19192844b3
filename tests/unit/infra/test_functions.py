"""A task's own functions: loaded once, called in a process that can be killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.infra.functions import Functions
from ratchet.schemas.checks import Answer
from ratchet.schemas.errors import FunctionFailed, SettingsError
from ratchet.schemas.events import Request

SOURCE = """
import os
import time

def short(answer):
    print("a function may print")
    return len(answer.text) < 5, f"{len(answer.text)} characters about {answer.request.messages[0]['content']}"

def freeze(answer):
    answer.text = "changed"

def boom(answer):
    raise KeyError("order")

def die(answer):
    os._exit(3)

def hang(answer):
    while True:
        time.sleep(0.01)

def spin(answer):
    return sum(1 for _ in range(10**12))

def nonsense(answer):
    return object()

def rights(answer):
    return 1.0, ",".join(name for name in os.environ if name.startswith("RATCHET_")) or "none"

async def later(answer):
    return True

def two(answer, more):
    return True

"""
NAMES = ["own:short", "own.boom", "own:die", "own:hang", "own:spin", "own:nonsense", "own:rights", "own:freeze"]
ANSWER = Answer(text="hello", request=Request(messages=[{"role": "user", "content": "greetings"}]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ratchet.toml, with a module beside it."""
    made = tmp_path_factory.mktemp("config")
    (made / "own.py").write_text(SOURCE)
    (made / "broken.py").write_text("import nothing_of_that_name\n")
    return made


@pytest.fixture(scope="module")
def functions(folder: Path) -> Iterator[Functions]:
    """All of them in one process."""
    os.environ["RATCHET_TEST_SECRET"] = "s"
    made = Functions(NAMES, folder, failures=1000)
    yield made
    made.close()
    del os.environ["RATCHET_TEST_SECRET"]


def test_values_and_reasons_come_back(functions: Functions) -> None:
    """A function is called with the answer and its request, may print, and does not see Ratchet's environment."""
    assert functions.call("own:short", ANSWER, 5) == [False, "5 characters about greetings"]
    assert functions.call("own:rights", ANSWER, 5) == [1.0, "none"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own.boom", "raised KeyError: 'order'"),
        ("own:nonsense", "returned object"),
        ("own:freeze", "raised ValidationError"),
        ("own:die", "its process ended"),
        ("own:hang", "took over 0.2 s"),
        ("own:spin", "took over 0.2 s"),
    ],
)
def test_what_fails_is_said_and_the_next_call_works(functions: Functions, name: str, says: str) -> None:
    """Whatever one call does (raise, return nonsense, change its argument, exit, hang), it ends; the next works."""
    with pytest.raises(FunctionFailed, match=says):
        functions.call(name, ANSWER, 0.2 if says.startswith("took") else 5)
    assert functions.call("own:short", ANSWER, 5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken:f", "broken cannot be imported: ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("own:missing", "own has no function 'missing'"),
        ("own:later", "an async function; allowed: a plain one"),
        ("own:two", "is called with one argument, the answer, and cannot be"),
    ],
)
def test_a_name_that_cannot_be_called_is_one_sentence_at_the_start(folder: Path, name: str, says: str) -> None:
    """It is refused before traffic, not met in it."""
    with pytest.raises(SettingsError) as caught:
        Functions([name], folder)
    assert str(caught.value).startswith(f"{name}: {says}")
    assert "\n" not in str(caught.value)


def test_a_function_that_always_hangs_is_left_alone(folder: Path) -> None:
    """After some hangs in a row the calls fail at once, for a while; then it is tried again."""
    now = [0.0]
    functions = Functions(["own:hang"], folder, failures=1, pause_s=30, monotonic=lambda: now[0] + time.monotonic())
    with pytest.raises(FunctionFailed, match="took over"):
        functions.call("own:hang", ANSWER, 0.05)
    with pytest.raises(FunctionFailed, match="left alone for a while"):
        functions.call("own:hang", ANSWER, 0.05)
    now[0] = 31
    with pytest.raises(FunctionFailed, match="took over"):
        functions.call("own:hang", ANSWER, 0.05)
    functions.close()


def test_the_version_is_the_modules_or_its_sources(tmp_path: Path) -> None:
    """``__version__`` where there is one; else a changed source is another version, and is not used unasked."""
    (tmp_path / "told.py").write_text("__version__ = '2.1'\ndef f(answer): return True\n")
    (tmp_path / "untold.py").write_text("import os\ndef f(answer): return True\ndef die(answer): os._exit(0)\n")
    functions = Functions(["told:f", "untold:f", "untold:die"], tmp_path)
    assert functions.versions["told:f"] == "2.1"
    assert len(functions.versions["untold:f"]) == 16
    (tmp_path / "untold.py").write_text("def f(answer): return False\ndef die(answer): return True\n")
    with pytest.raises(FunctionFailed, match="its process ended"):
        functions.call("untold:die", ANSWER, 5)
    with pytest.raises(FunctionFailed, match="changed on disk; restart the consumer"):
        functions.call("untold:f", ANSWER, 5)
    functions.close()
