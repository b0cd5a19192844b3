"""Importing files: forms, bad records, the real PandaLM set."""

import json
from pathlib import Path
from typing import Any

import pytest

from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.errors import BrokerError, DatasetError, SettingsError
from ratchet.schemas.events import Feedback
from ratchet.services.importing import jsonl
from ratchet.services.importing.records import load_map, read_records
from ratchet.services.rules.mapping import Map

ROOT = Path(__file__).resolve().parents[4]
PANDALM = ROOT.parent / "shared" / "data" / "pandalm-testset-v1.json"
THUMBS = Map.model_validate(
    {
        "task": "support",
        "time": {"field": "{t}"},
        "inference": [{"name": "one", "prompt": "{q}", "content": "{a}"}],
        "feedback": [{"inference": "one", "kind": "thumb", "value": "{good}"}],
    }
)


def _record(number: int, **changes: Any) -> dict[str, Any]:
    return {"t": 1714521600 + number, "q": f"question {number}", "a": "answer", "good": number % 2 == 0} | changes


def _lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ('[{"a": 1}, {"a": 2}]', None),
        ('\ufeff[{"a": 1}, {"a": 2}]', None),
        ('{"a": 1}\n\n{"a": 2}', None),
        ('\ufeff{"a": 1}\r\n{"a": 2}\r\n', None),
        ('{"data": {"rows": [{"a": 1}, {"a": 2}]}}', "data.rows"),
    ],
)
def test_every_form_of_file_gives_its_records(tmp_path: Path, text: str, inside: str | None) -> None:
    """A JSON array, JSONL, and an array inside a document give the same records."""
    file = tmp_path / "log"
    file.write_text(text, encoding="utf-8")
    assert [record.value for record in read_records(file, inside)] == [{"a": 1}, {"a": 2}]


def test_bad_line_is_named_and_the_rest_imported(tmp_path: Path) -> None:
    """Up to 5% of bad records are reported by line and reason; the good ones are published."""
    file = _lines(tmp_path / "log.jsonl", [_record(n) for n in range(38)] + [_record(38, good="yes")])
    with file.open("a") as log:
        log.write('{"t": 1\n')
    report = jsonl.check(file, THUMBS)
    publisher = MemoryPublisher()
    jsonl.publish(file, THUMBS, report, publisher)
    assert (report.records, report.bad, report.published, len(publisher.events)) == (40, 2, 76, 76)
    assert report.examples[0].startswith("line 39: Feedback: event: ")
    assert report.examples[1].startswith("line 40: not JSON")


def test_more_than_five_percent_bad_imports_nothing(tmp_path: Path) -> None:
    """A map that does not fit the file is refused with the count and the first reasons."""
    file = _lines(tmp_path / "log.jsonl", [_record(n, good=None if n < 2 else True) for n in range(30)])
    with pytest.raises(DatasetError, match=r"2 of 30 records are bad.*line 1"):
        jsonl.check(file, THUMBS)


@pytest.mark.parametrize(("content", "named"), [(None, "No such file"), ("", "no records"), ("[1, ", "not JSON")])
def test_unreadable_file_is_one_sentence(tmp_path: Path, content: str | None, named: str) -> None:
    """A missing, empty or cut file ends with its name and what is wrong."""
    file = tmp_path / "log.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(DatasetError, match=f"log.json: .*{named}"):
        jsonl.check(file, THUMBS)


def test_second_import_publishes_the_same_events(tmp_path: Path) -> None:
    """Importing a file twice gives equal events under equal ids, through a full local queue too."""
    file = _lines(tmp_path / "log.jsonl", [_record(n) for n in range(50)])
    first, second = MemoryPublisher(), MemoryPublisher(queue_records=7)
    for publisher in (first, second):
        jsonl.publish(file, THUMBS, jsonl.check(file, THUMBS), publisher)
    assert first.events == second.events


def test_kafka_that_takes_nothing_is_said(tmp_path: Path) -> None:
    """Events that stay undelivered end the import with their number."""
    file = _lines(tmp_path / "log.jsonl", [_record(1)])
    publisher = MemoryPublisher()
    publisher.away = True
    with pytest.raises(BrokerError, match="2 events"):
        jsonl.publish(file, THUMBS, jsonl.check(file, THUMBS), publisher, timeout_s=0)


def test_wrong_map_file_names_the_key(tmp_path: Path) -> None:
    """A map file with an unknown key is refused, naming file and key."""
    file = tmp_path / "map.toml"
    file.write_text('task = "x"\nkind = "y"\n')
    with pytest.raises(SettingsError, match=r"map.toml: .*kind"):
        load_map(file)


def test_pandalm_becomes_its_inferences_and_votes() -> None:
    """The committed map turns the 999 records of PandaLM into 1,998 inferences and 2,997 votes, none bad."""
    mapping = load_map(ROOT / "examples" / "pandalm.toml")
    if not PANDALM.is_file():
        pytest.skip(f"no PandaLM test set at {PANDALM}")
    report = jsonl.check(PANDALM, mapping)
    assert (report.records, report.bad) == (999, 0)
    assert report.events == {"feedback.v1": 2997, "inference.v1": 1998}
    publisher = MemoryPublisher()
    jsonl.publish(PANDALM, mapping, report, publisher)
    votes = [event for event in publisher.events if isinstance(event, Feedback)]
    assert len({event.id for event in publisher.events}) == 4995
    assert {vote.user for vote in votes} == {"annotator1", "annotator2", "annotator3"}
    raw = json.loads(PANDALM.read_bytes())
    firsts = sum(record[f"annotator{n}"] == 1 for record in raw for n in (1, 2, 3))
    assert sum(vote.value == "this" for vote in votes) == firsts
