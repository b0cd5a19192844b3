"""`ratchet judge`: judging stored answers again."""

from __future__ import annotations

import typer

from ratchet.services.cli import judge_anchors, judge_calibrate

app = typer.Typer(no_args_is_help=True, help="LLM judges: judge stored answers again.")
app.command("calibrate")(judge_calibrate.calibrate)
app.add_typer(judge_anchors.app, name="anchors")
