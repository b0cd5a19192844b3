"""Templates of import maps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.services.rules.template import Unfilled, fill, form_problem

RECORD = {"a": "x", "n": 3, "deep": {"list": [10, {"b": True}]}, "dotted.name": "d", "none": None}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{a}", "x"),
        ("{n}", 3),
        ("{none}", None),
        ("{deep.list.1.b}", True),
        ("{dotted.name}", "d"),
        ("a={a}, n={n}, list={deep.list}", 'a=x, n=3, list=[10,{"b":true}]'),
        ("{{{a}}}", "{x}"),
        ({"from": "{n}", "lookup": {"3": "three"}}, "three"),
        ({"from": "{a}", "lookup": {}, "default": 7}, 7),
        ({"text": " {a}\n", "strip": True}, "x"),
        ({"hash": "{a}"}, "2d711642b726b04401627ca9fbac32f5"),
        ([{"role": "user", "content": "{a}"}], [{"role": "user", "content": "x"}]),
        (4.5, 4.5),
    ],
)
def test_template_is_filled(template: Any, filled: Any) -> None:
    """Each form gives what its description says."""
    assert form_problem(template) is None
    assert fill(template, RECORD) == filled


@pytest.mark.parametrize(
    ("template", "named"),
    [("{b}", "'b'"), ("{deep.list.2}", "'2'"), ({"from": "{a}", "lookup": {"y": 1}}, "'x'"), ("{a.b}", "'b'")],
)
def test_unfilled_template_names_what_is_missing(template: Any, named: str) -> None:
    """A field that is not there, or a value that a lookup does not know, is named."""
    with pytest.raises(Unfilled, match=named):
        fill(template, RECORD)


@pytest.mark.parametrize("template", ["{", "a}", "{}", "{ }", {"hash": 3}, {"from": "{a}", "lookup": "x"}, [["{"]]])
def test_malformed_template_is_refused(template: Any) -> None:
    """A lone brace or a form with a wrong member is found before any record is read."""
    assert form_problem(template) is not None


@given(st.text(max_size=40))
def test_braces_doubled_are_the_text_itself(text: str) -> None:
    """Any text can be written as a constant by doubling its braces."""
    template = text.replace("{", "{{").replace("}", "}}")
    assert form_problem(template) is None
    assert fill(template, {}) == text
