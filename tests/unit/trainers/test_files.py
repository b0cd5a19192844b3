"""Files of training data: every format in and out again, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.schemas.errors import DatasetError
from ratchet.trainers.files import read_file, write_file
from ratchet.trainers.rules.formats import FORMATS, BadRecord, read_record

SYSTEM, USER, MORE = ({"role": role, "content": role} for role in ("system", "user", "assistant"))
ANSWER = {"role": "assistant", "content": "so"}
RECORDS: dict[str, list[dict[str, Any]]] = {
    "instruction": [
        {"instruction": "Sum up.", "input": "A text.", "output": "Text."},
        {"instruction": "a", "output": "b"},
    ],
    "messages": [{"messages": [SYSTEM, USER, MORE, USER, ANSWER], "weight": 0.5}, {"messages": [USER, ANSWER]}],
    "turns": [{"system": "s", "user": "u", "assistant": "a"}, {"system": None, "user": "u2", "assistant": "a"}],
    "prompt-completion": [{"prompt": "p", "completion": "c"}, {"prompt": [SYSTEM, USER], "completion": [ANSWER]}],
    "unpaired": [{"prompt": "p", "completion": "c", "label": True}, {"prompt": "q", "completion": "c", "label": False}],
    "preference": [
        {"prompt": "p", "chosen": "c", "rejected": "r", "confidence": 0.6, "conversation_id": "t", "synthetic": True},
        {"chosen": [USER, ANSWER], "rejected": [USER, MORE], "user_hash": "u"},
    ],
}


def jsonl(path: Path, records: list[Any]) -> Path:
    """Write records, a line each."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.parametrize("format_", RECORDS)
def test_a_format_is_read_and_written_without_loss(format_: str, tmp_path: Path) -> None:
    """Rows of a file, written as JSONL and as Parquet in the same format, read as the same rows."""
    assert RECORDS.keys() == FORMATS.keys()
    read = read_file(jsonl(tmp_path / "in.jsonl", RECORDS[format_]), format_)
    assert (len(read.rows), read.bad) == (2, [])
    rows = [row for row, _ in read.rows]
    for name in ("out.jsonl", "out.parquet"):
        write_file(tmp_path / name, format_, FORMATS[format_].kind, rows)
        assert [row for row, _ in read_file(tmp_path / name, format_).rows] == rows


def test_one_shape_of_rows_comes_of_all_formats() -> None:
    """An instruction with its input is one user message; an implicit prompt is what both conversations begin with."""
    instruction, _ = read_record("instruction", RECORDS["instruction"][0])
    assert instruction["prompt"] == [{"role": "user", "content": "Sum up.\n\nA text."}]
    implicit, user = read_record("preference", RECORDS["preference"][1])
    assert (implicit["prompt"], implicit["chosen"], user) == ([USER], [ANSWER], "u")
    named, _ = read_record("preference", RECORDS["preference"][0])
    assert (named["synthetic"], named["confidence"], named["conversation_id"]) == (True, 0.6, "t")
    assert read_record("unpaired", RECORDS["unpaired"][1])[0]["label"] is False


@pytest.mark.parametrize(
    ("format_", "record", "says"),
    [
        ("instruction", {"instruction": "a"}, "output: Field required"),
        ("instruction", {"instruction": " ", "output": "b"}, "instruction"),
        ("turns", {"sytem": "s", "user": "u", "assistant": "a"}, "sytem: Extra inputs"),
        ("messages", {"messages": [USER, USER]}, "not one message of the assistant"),
        ("messages", {"messages": [USER, {"role": "tool", "content": "x"}]}, "role"),
        ("prompt-completion", {"prompt": [USER, MORE], "completion": "c"}, "does not end with a user's message"),
        ("unpaired", {"prompt": "p", "completion": "c", "label": 1}, "label"),
        ("preference", {"prompt": "p", "chosen": "a", "rejected": "a"}, "are the same"),
        ("preference", {"chosen": "a", "rejected": "b"}, "no prompt"),
        ("turns", ["u"], "list; allowed: an object"),
    ],
)
def test_a_bad_record_says_what_is_allowed(format_: str, record: Any, says: str) -> None:
    """Strictly: a missing, empty, misspelt, wrongly typed or contradictory field."""
    with pytest.raises(BadRecord, match=says):
        read_record(format_, record)


def test_few_bad_lines_are_named_and_many_stop(tmp_path: Path) -> None:
    """One bad line in twenty is left out under its number; one more and the file is refused with examples."""
    good = [{"user": f"u{n}", "assistant": "a"} for n in range(19)]
    file = jsonl(tmp_path / "x.jsonl", good)
    file.write_text(file.read_text() + "\n{no json\n")
    read = read_file(file, "turns")
    assert (len(read.rows), [number for number, _ in read.bad]) == (19, [21])
    file.write_text(file.read_text() + '{"user": "u"}\n')
    with pytest.raises(
        DatasetError, match=r"2 of 21 lines are not of the format turns.*line 21: not JSON.*line 22: ass"
    ):
        read_file(file, "turns")
    assert len(read_file(jsonl(file, [one | {"extra": 1} for one in good]), "turns", frozenset({"extra"})).rows) == 19


def test_one_id_for_two_rows_is_bad(tmp_path: Path) -> None:
    """The second of them is named with the line of the first."""
    rows = [{"id": f"{n % 20}", "user": f"u{n}", "assistant": "a"} for n in range(21)]
    assert read_file(jsonl(tmp_path / "x.jsonl", rows), "turns").bad == [
        (21, "id '0': line 1 has it too and says something else")
    ]


@pytest.mark.parametrize(
    ("format_", "record", "out", "says"),
    [
        ("messages", RECORDS["messages"][0], "turns", "no place for the turns system, user, assistant, user"),
        ("turns", RECORDS["turns"][0], "instruction", "no place for a system prompt"),
        ("turns", RECORDS["turns"][0], "preference", "holds preference rows, these are sft; allowed: rows, instr"),
        (
            "unpaired",
            RECORDS["unpaired"][0],
            "prompt-completion",
            "holds sft rows, these are kto; allowed: rows, unpaired",
        ),
    ],
)
def test_a_format_that_would_lose_something_is_refused(
    format_: str, record: Any, out: str, says: str, tmp_path: Path
) -> None:
    """A sentence says what has no place, and nothing is written."""
    row, _ = read_record(format_, record)
    with pytest.raises(DatasetError, match=f"would lose something: .*{says}"):
        write_file(tmp_path / "out.jsonl", out, FORMATS[format_].kind, [row])
    assert not (tmp_path / "out.jsonl").exists()


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A wrong ending, no file, no row, no Parquet: one sentence each."""
    (tmp_path / "no.parquet").write_bytes(b"nothing of the kind")
    (tmp_path / "empty.jsonl").write_bytes(b"\n")
    for name, says in (("x.csv", "allowed: .jsonl, .parquet"), ("x.jsonl", "No such"), ("empty.jsonl", "no row")):
        with pytest.raises(DatasetError, match=says):
            read_file(tmp_path / name, "turns")
    with pytest.raises(DatasetError, match="no Parquet file"):
        read_file(tmp_path / "no.parquet", "turns")
