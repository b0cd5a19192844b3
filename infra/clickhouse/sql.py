"""Just enough of ClickHouse's lexer to cut a file into statements and an insert into head and data.

Both the migrations and the embedded server need to know where a quoted string or a
comment ends; neither needs a parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

DATABASE = "ratchet"
"""The database that migrations and queries name."""

# A lexer by alternation: whatever opens a string, a quoted name or a comment is consumed whole.
_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?\*/)
    | (?P<quoted>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|`(?:[^`\\]|\\.|``)*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<other>[0-9]\w*|.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_SKIP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)"
_NAME = r"""(?:[A-Za-z_]\w*|`(?:[^`\\]|\\.)*`|"(?:[^"\\]|\\.)*"|\{\w+\s*:\s*Identifier\})"""
_INTO = re.compile(
    rf"{_SKIP}*INSERT{_SKIP}+INTO{_SKIP}+(?:TABLE{_SKIP}+)?(?:FUNCTION{_SKIP}+)?{_NAME}(?:{_SKIP}*\.{_SKIP}*{_NAME})?",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
_DATA = re.compile(r"[ \t\f]*(?:\r?\n)?")
_PLACEHOLDER = re.compile(r"\{\s*([A-Za-z_]\w*)\s*:")
_OUTPUT_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b.*)?;?\s*\Z", re.IGNORECASE | re.DOTALL)


def tokens(text: str, start: int = 0) -> Iterator[tuple[str, str, int]]:
    """Yield (kind, text, offset) with kind one of space (also comments), quoted, word, other."""
    for match in _TOKEN.finditer(text, start):
        kind = "quoted" if match.lastgroup == "tag" else match.lastgroup
        yield kind or "other", match.group(), match.start()


def split_statements(text: str) -> list[str]:
    """Cut SQL text at the semicolons that end statements.

    Comments stay with the statement that follows them; a piece of nothing but comments
    is dropped.

    Raises:
        ValueError: a string, quoted name or comment is not closed.
    """
    statements: list[str] = []
    start, code = 0, False
    for kind, piece, offset in tokens(text):
        if kind == "other" and piece in "'\"`":
            raise ValueError(f"a {piece} that is not closed, in line {text.count(chr(10), 0, offset) + 1}")
        if kind == "other" and text.startswith("/*", offset):
            raise ValueError(f"a comment that is not closed, in line {text.count(chr(10), 0, offset) + 1}")
        if piece == ";" and kind == "other":
            if code:
                statements.append(text[start:offset].strip())
            start, code = offset + 1, False
        elif kind != "space":
            code = True
    if code:
        statements.append(text[start:].strip())
    return statements


def placeholders(sql: str) -> frozenset[str]:
    """The names of a query's bound parameters, ``{name:Type}``, outside strings and comments."""
    bare = "".join(piece if kind in ("word", "other") else " " for kind, piece, _ in tokens(sql))
    return frozenset(_PLACEHOLDER.findall(bare))


def in_database(sql: str, database: str) -> str:
    """The statement with ``ratchet.`` read as another database's name; strings and comments stay as they are.

    Files are written for the database ``ratchet``; so they serve one beside it, too.
    """
    if database == DATABASE:
        return sql
    pieces = [(kind, piece) for kind, piece, _ in tokens(sql)]
    after = [*(piece for _, piece in pieces[1:]), ""]
    before = ["", *(piece for _, piece in pieces[:-1])]
    return "".join(
        f"`{database}`" if kind == "word" and piece == DATABASE and following == "." and ahead != "." else piece
        for (kind, piece), following, ahead in zip(pieces, after, before, strict=True)
    )


def first_word(sql: str) -> str:
    """The keyword that a statement starts with, in capitals; empty where there is none."""
    for kind, piece, _ in tokens(sql):
        if kind == "word":
            return piece.upper()
        if kind != "space" and piece != "(":  # (SELECT …) UNION ALL (…)
            break
    return ""


def output_format(sql: str) -> str | None:
    """The format that a statement's own trailing FORMAT clause names, if there is one."""
    match = _OUTPUT_FORMAT.search(sql)
    return match.group(1) if match else None


@dataclass(frozen=True)
class InsertHead:
    """Where ``INSERT INTO … [SETTINGS …] FORMAT x`` ends and its data begins (offsets into the text)."""

    into: str
    """Up to the SETTINGS or FORMAT clause: the place for ``FROM INFILE``."""
    settings: str
    """The SETTINGS clause, or nothing."""
    format: str
    data_at: int


def insert_head(text: str) -> InsertHead | None:
    """Find the head of an insert whose data follows it; None for every other statement.

    ``INSERT … SELECT``, ``INSERT … VALUES`` and ``FROM INFILE`` are ordinary statements
    here. The data starts where ClickHouse's own parser has it: after blanks and one newline.
    """
    into = _INTO.match(text)
    if into is None:
        return None
    depth = 0
    settings_at = format_at = None
    for kind, piece, offset in tokens(text, into.end()):
        if kind == "space":
            continue
        if format_at is not None:
            if kind != "word":
                return None
            cut = format_at if settings_at is None else settings_at
            data = _DATA.match(text, offset + len(piece))
            assert data is not None  # the pattern matches the empty string too
            return InsertHead(text[:cut].rstrip(), text[cut:format_at].strip(), piece, data.end())
        depth += (piece == "(") - (piece == ")")
        if depth or kind != "word":
            continue
        keyword = piece.upper()
        if keyword in ("VALUES", "SELECT", "WITH", "FROM", "WATCH"):
            return None
        if keyword == "FORMAT":
            format_at = offset
        elif keyword == "SETTINGS" and settings_at is None:
            settings_at = offset
    return None
