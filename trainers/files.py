"""Training data in files, JSONL or Parquet by their ending: read strictly, written without loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.rules.dataset import Kind, Row, id_of, lines
from ratchet.trainers.rules.formats import BadRecord, NoPlace, read_record, write_record

MOST_BAD = 0.05
"""The share of bad lines from which on a file is refused: then it is the wrong file or the wrong format."""
EXAMPLES = 5
AS_STORED = "rows"
"""The format of a version's own files, with everything that a row says."""
_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Imported:
    """A file's rows, each with the user that it names (or ``""``), and what was bad, by line."""

    rows: list[tuple[Row, str]]
    bad: list[tuple[int, str]]


def read_file(file: Path, format_: str, ignore: frozenset[str] = frozenset()) -> Imported:
    """Read a file of training data.

    Args:
        file: ``.jsonl`` or ``.parquet``.
        format_: one of `FORMATS`.
        ignore: fields that are left out; any other unknown field makes a line bad.

    Raises:
        DatasetError: the file cannot be read, has no row, or more than 5% of its lines are bad: says which and why.
    """
    found = Imported([], [])
    known: dict[str, tuple[int, Row]] = {}
    for number, record in _records(file):
        try:
            if isinstance(record, BadRecord):
                raise record
            row, user = read_record(format_, record, ignore)
            first, same = known.setdefault(id_of(row), (number, row))
            if same != row:
                raise BadRecord(f"id {id_of(row)!r}: line {first} has it too and says something else")
            found.rows.append((row, user))
        except BadRecord as bad:
            found.bad.append((number, str(bad)))
    total = len(found.rows) + len(found.bad)
    if not total:
        raise DatasetError(f"{file}: no row in it")
    if len(found.bad) > MOST_BAD * total:
        what = "row" if file.suffix == ".parquet" else "line"
        shown = "; ".join(f"{what} {number}: {reason}" for number, reason in found.bad[:EXAMPLES])
        more = f"; and {len(found.bad) - EXAMPLES} more" if len(found.bad) > EXAMPLES else ""
        raise DatasetError(
            f"{file}: {len(found.bad)} of {total} {what}s are not of the format {format_}, allowed:"
            f" {MOST_BAD:.0%}: {shown}{more}"
        )
    return found


def write_file(file: Path, format_: str, kind: Kind, rows: Sequence[Row]) -> None:
    """Write rows to a file.

    Args:
        file: ``.jsonl`` or ``.parquet``.
        format_: one of `FORMATS`, or ``rows``: as they are stored.
        kind: of the rows.
        rows: what to write.

    Raises:
        DatasetError: the format has no place for something that a row says (nothing is written then), or the file
            cannot be written.
    """
    records: list[dict[str, Any]] = []
    for row in rows:
        try:
            records.append(row if format_ == AS_STORED else write_record(format_, kind, row))
        except NoPlace as reason:
            raise DatasetError(f"{file} is not written, it would lose something: {reason}") from None
    try:
        if _is_parquet(file):
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), file)
        else:
            file.write_bytes(lines(records))
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from None


def _records(file: Path) -> Iterator[tuple[int, object]]:
    """Each record with its line (or row) from 1 on; a `BadRecord` where the line is no JSON."""
    try:
        yield from _parquet(file) if _is_parquet(file) else _jsonl(file)
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from None


def _jsonl(file: Path) -> Iterator[tuple[int, object]]:
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if not line.strip():
                continue
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, BadRecord(f"not JSON: {error}")


def _parquet(file: Path) -> Iterator[tuple[int, object]]:
    import pyarrow
    import pyarrow.parquet

    try:
        number = 0
        with pyarrow.parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(_BATCH):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except pyarrow.ArrowInvalid as error:
        raise DatasetError(f"{file}: no Parquet file: {error}") from None


def _is_parquet(file: Path) -> bool:
    if file.suffix not in (".jsonl", ".parquet"):
        raise DatasetError(f"{file}: its ending says how it is written; allowed: .jsonl, .parquet")
    return file.suffix == ".parquet"
