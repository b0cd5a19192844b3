"""The packaging guard: what the wheel holds is what the tree holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("schemas", "infra", "consumers", "trainers", "services")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


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
