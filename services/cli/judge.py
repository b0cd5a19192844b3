"""`ratchet judge`: judging stored answers again."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="LLM judges: judge stored answers again.")
