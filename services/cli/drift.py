"""`ratchet drift`: what moved, and how far the rules that say so can be trusted."""

from __future__ import annotations

import typer

from ratchet.services.cli.backtest import backtest

app = typer.Typer(help="What moved, and how often the rules are wrong.", no_args_is_help=True)
app.command()(backtest)


@app.callback()
def drift() -> None:
    """What moved, and how often the rules are wrong."""
