"""docs/checks.md: its examples are settings that Ratchet takes, and its function is one that it can call."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from ratchet.consumers.check_set import CheckSet
from ratchet.schemas.checks import Answer, Check
from ratchet.schemas.events import Request
from ratchet.schemas.policies import TaskPolicy

PAGE = (Path(__file__).parents[3] / "docs" / "checks.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```(toml|json|python)\n(.*?)```", PAGE, re.DOTALL)
ASKED = Request(messages=[{"role": "user", "content": "capital of France?"}])


def parts(language: str) -> list[str]:
    """The page's code in one language."""
    return [code for found, code in SNIPPETS if found == language]


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckSet]:
    """Every example of the page as one task's checks, with its file and its function beside it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "references.jsonl").write_text("".join(parts("json")))
    (folder / "tone.py").write_text("".join(parts("python")))
    declared = tomllib.loads("\n".join(parts("toml")))["tasks"]["support"]
    made = CheckSet({"support": TaskPolicy.model_validate(declared).checks}, folder)
    yield made
    made.close()


def test_every_kind_has_an_example() -> None:
    """One at least, under a heading of its own."""
    kinds = {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(get_args(Check)[0])}
    assert {kind for text in parts("toml") for kind in re.findall(r'kind = "(\w+)"', text)} == kinds
    assert set(re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE)) == kinds


def test_the_examples_say_of_an_answer_what_the_page_says(checks: CheckSet) -> None:
    """The page's function, its reference file and the rest run on one answer."""
    answer = Answer(text="Paris, thank you!", request=ASKED, latency_ms=900, ttft_ms=700)
    said = {one.check.name: result.verdict for one, result in checks.run("support", answer)}
    assert said == {
        "ticket": "fail", "fields": "fail", "no-internal-links": "pass", "known-answers": "fail", "says-done": "fail",
        "brief": "pass", "their-language": "abstain", "no-refusal": "pass", "sure": "pass", "first-token": "pass",
        "tools-fit": "fail", "polite": "pass",
    }  # fmt: skip
    (polite,) = [result for one, result in checks.run("support", answer) if one.check.name == "polite"]
    assert (polite.score, polite.reason) == (0.5, "says thank you")
