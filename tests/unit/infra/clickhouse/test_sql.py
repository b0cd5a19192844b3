"""The little lexer that cuts SQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clickhouse.sql import (
    first_word,
    in_database,
    insert_head,
    output_format,
    placeholders,
    split_statements,
)

_PIECES = st.sampled_from(
    ["SELECT 1", "'a;b'", "`c;d`", '"e;f"', "-- g;\n", "/* h; */", "$$i;$$", "'it''s;'", r"'\';'", "(1, 2)", "# j;\n"]
)


@given(st.lists(st.lists(_PIECES, min_size=1).map(lambda parts: "SELECT 1 " + " ".join(parts)), min_size=1))
def test_split_gives_back_the_statements_that_were_joined(statements: list[str]) -> None:
    """A semicolon in a string, a quoted name or a comment never ends a statement."""
    assert split_statements(";\n".join(statements)) == [statement.strip() for statement in statements]


def test_comments_alone_are_no_statement() -> None:
    """What follows the last semicolon may be a comment."""
    assert split_statements("SELECT 1;\n-- the end;\n/* ; */") == ["SELECT 1"]


@pytest.mark.parametrize("text", ["SELECT 'a;", "SELECT 1; /* b", 'SELECT "c', "SELECT `d"])
def test_an_unclosed_quote_is_refused(text: str) -> None:
    """Half a file must not be run as if it were whole."""
    with pytest.raises(ValueError, match="not closed, in line 1"):
        split_statements(text)


@given(st.lists(_PIECES).map(" ".join))
def test_another_database_is_named_wherever_ratchet_is(between: str) -> None:
    """In front of a table's name and nowhere else; what strings and comments say stays."""
    sql = f"SELECT ratchet.a.ratchet, 'ratchet.b' {between} FROM ratchet.a AS ratchet -- ratchet.c"
    expected = f"SELECT `other`.a.ratchet, 'ratchet.b' {between} FROM `other`.a AS ratchet -- ratchet.c"
    assert in_database(sql, "other") == expected
    assert in_database(sql, "ratchet") == sql


def test_placeholders_are_found_outside_strings() -> None:
    """Only what the server would bind counts as a parameter."""
    sql = "SELECT {a:String}, { b : DateTime64(3, 'UTC')}, '{c:Int8}' -- {d:Int8}\n, map('e', 1)"
    assert placeholders(sql) == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "into", "settings", "form", "data"),
    [
        ("INSERT INTO t FORMAT JSONEachRow\n{}", "INSERT INTO t", "", "JSONEachRow", "{}"),
        ("insert into d.t (a, `FORMAT`) format CSV 1", "insert into d.t (a, `FORMAT`)", "", "CSV", "1"),
        (
            "INSERT INTO t SETTINGS x = 'FORMAT' FORMAT TSV\r\n\n1",
            "INSERT INTO t",
            "SETTINGS x = 'FORMAT'",
            "TSV",
            "\n1",
        ),
        ("INSERT INTO format (values) FORMAT Native", "INSERT INTO format (values)", "", "Native", ""),
        ("/* a */ INSERT INTO TABLE FUNCTION null('x Int8') FORMAT CSV\n1", None, "", "CSV", "1"),
    ],
)
def test_insert_head_finds_where_the_data_begins(
    text: str, into: str | None, settings: str, form: str, data: str
) -> None:
    """Names and strings that look like keywords do not mislead it."""
    head = insert_head(text)
    assert head is not None
    assert (head.settings, head.format, text[head.data_at :]) == (settings, form, data)
    assert head.into == (into or "/* a */ INSERT INTO TABLE FUNCTION null('x Int8')")


@pytest.mark.parametrize(
    "text", ["INSERT INTO t VALUES (1)", "INSERT INTO t SELECT 1 FORMAT CSV", "SELECT 1", "", "INSERT"]
)
def test_other_statements_have_no_insert_head(text: str) -> None:
    """They are run as they are."""
    assert insert_head(text) is None


@given(st.text())
def test_no_text_breaks_the_lexer(text: str) -> None:
    """Bodies come from outside: any text has an answer."""
    insert_head(text)
    insert_head("INSERT INTO " + text)
    placeholders(text)
    first_word(text)
    output_format(text)


def test_output_format_is_the_trailing_clause() -> None:
    """A string that mentions a format is none."""
    assert output_format("SELECT 1 FORMAT Native;") == "Native"
    assert output_format("SELECT 1 FORMAT JSON SETTINGS max_threads = 1") == "JSON"
    assert output_format("SELECT 'FORMAT JSON'") is None
