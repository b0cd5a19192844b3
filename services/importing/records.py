"""Records out of a JSON array, a JSON document that holds one, or JSONL (one record a line)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from ratchet.schemas.errors import DatasetError, SettingsError
from ratchet.schemas.explain import explain
from ratchet.services.rules.mapping import Map
from ratchet.services.rules.template import Unfilled, field

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: its number from 0, where it stands, and its value or what is wrong with it."""

    index: int
    place: str
    value: Any = None
    problem: str | None = None


def load_map(path: Path) -> Map:
    """Read a map file.

    Raises:
        SettingsError: the file cannot be read, or names the bad key, its value and what is allowed.
    """
    try:
        return Map.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; name an existing map file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    except ValidationError as error:
        raise SettingsError(f"{path}: {explain(error)}") from None


def read_records(path: Path, inside: str | None) -> Iterator[Record]:
    """Read the records of a file one after the other; JSONL is never held whole in memory.

    Args:
        path: a file that begins with ``[`` is one JSON array; any other is JSONL.
        inside: dotted path to the list inside one JSON document; None for the two forms above.

    Raises:
        DatasetError: the file cannot be read, or is not the document that it begins like.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096).removeprefix(BOM).lstrip()
            file.seek(0)
            if inside is not None or head.startswith(b"["):
                yield from _document(path, file.read(), inside)
            else:
                yield from _lines(file)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from None


def _document(path: Path, raw: bytes, inside: str | None) -> Iterator[Record]:
    try:
        value = orjson.loads(raw.removeprefix(BOM))
        records = value if inside is None else field(value, inside)
    except orjson.JSONDecodeError as error:
        raise DatasetError(f"{path}: not JSON: {error}") from None
    except Unfilled as error:
        raise DatasetError(f"{path}: {error}") from None
    if not isinstance(records, list):
        raise DatasetError(f"{path}: {inside or 'the document'} is no list of records")
    for index, record in enumerate(records):
        yield Record(index, f"record {index}", record)


def _lines(file: Iterator[bytes]) -> Iterator[Record]:
    index = 0
    for number, line in enumerate(file, start=1):
        stripped = (line.removeprefix(BOM) if number == 1 else line).strip()
        if not stripped:
            continue
        try:
            yield Record(index, f"line {number}", orjson.loads(stripped))
        except orjson.JSONDecodeError as error:
            yield Record(index, f"line {number}", problem=f"not JSON: {error}")
        index += 1
