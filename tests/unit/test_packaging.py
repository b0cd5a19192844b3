"""The packaging guard: what the wheel holds is what the tree holds."""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "infra", "consumers", "trainers", "services")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONFIG = PROJECT["tool"]["setuptools"]
# What the plain install lacks cannot be imported; the client works all the same, and says what Kafka needs.
LIGHT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from ratchet.services.client import AsyncClient, Client
print([name for name in sys.modules if name == "typer" or name.startswith(PARTS)])
client = Client("http://127.0.0.1:1", task="support")
client.feedback(client.log_inference(model="m", latency_ms=1, prompt="x"), thumb=True)
print(client.close(0))
try:
    Client.to_kafka("127.0.0.1:1")
except ImportError as error:
    print(error)
from ratchet.services.cli import main
sys.argv = ["ratchet", "dlq", "list"]
main.run()
"""


def package_folders() -> set[str]:
    """Every folder of a room that holds Python code, as a package name."""
    return {
        "ratchet." + ".".join(path.parent.relative_to(ROOT).parts)
        for room in ROOMS
        for path in (ROOT / room).rglob("__init__.py")
    }


def test_every_folder_is_listed() -> None:
    """A folder that is not listed would be missing from the wheel though editable installs work."""
    assert set(CONFIG["packages"]) == package_folders()


def test_every_folder_with_code_is_a_package() -> None:
    """Code outside a package would never be installed."""
    folders = {path.parent for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert [str(folder) for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_data_files_are_packaged() -> None:
    """Every data file lies in a folder that is a package, and has a suffix that is packaged."""
    patterns = CONFIG["package-data"]["*"]
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc"):
                assert any(path.match(pattern) for pattern in patterns), path
                assert (path.parent / "__init__.py").exists(), path


def test_init_files_hold_no_code() -> None:
    """Importing a package does nothing."""
    for room in ROOMS:
        for path in (ROOT / room).rglob("__init__.py"):
            assert path.read_text().strip() == "", path


def test_no_file_is_too_big_to_know() -> None:
    """Modules stay under 400 lines."""
    for room in (*ROOMS, "tests"):
        for path in (ROOT / room).rglob("*.py"):
            assert len(path.read_text().splitlines()) <= 400, path


def base_distributions() -> set[str]:
    """Every distribution that `pip install ratchet` brings, by normalized name."""
    found: set[str] = set()
    waiting = list(PROJECT["project"]["dependencies"])
    while waiting:
        wanted = Requirement(waiting.pop())
        name = wanted.name.lower().replace("_", "-")
        if (wanted.marker is None or wanted.marker.evaluate({"extra": ""})) and name not in found:
            found.add(name)
            waiting += metadata.requires(name) or []
    return found


def test_the_client_needs_the_plain_install_alone() -> None:
    """Without every package of the extras the client works; what needs more says so in one sentence."""
    base = base_distributions() | {"ratchet"}
    absent = [
        module
        for module, names in metadata.packages_distributions().items()
        if base.isdisjoint(name.lower().replace("_", "-") for name in names)
    ]
    assert {"torch", "confluent_kafka", "aiohttp", "openai"} <= set(absent)
    rooms = ("consumers", "trainers", "infra.clickhouse", "infra.settings", "services.gateway", "services.cli.")
    parts = tuple(f"ratchet.{room}" for room in rooms)
    script = f"ABSENT = {set(absent)!r}\nPARTS = {parts!r}\n{LIGHT}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == [
        "[]",
        "2",
        "events to Kafka need confluent-kafka, which the plain install leaves out: pip install 'ratchet[kafka]'",
    ], done.stderr
    [said] = done.stderr.splitlines()[-1:]
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert said.startswith("ratchet: this command needs ")
    assert "pip install 'ratchet[" in said
