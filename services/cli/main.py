"""The `ratchet` command: one Typer app, a module a group of commands.

Nothing heavy is imported at the top of any module here, so `ratchet --help` stays quick.
"""

from __future__ import annotations

import logging
import sys

import typer

from ratchet.schemas.errors import RatchetError
from ratchet.services.cli import (
    adapters,
    alerts,
    checks,
    cost,
    data,
    dataset,
    dlq,
    drift,
    export,
    forget,
    jobs,
    judge,
    keys,
    operate,
    pairs,
    rollout,
    training,
)

app = typer.Typer(
    name="ratchet",
    help="Production traffic trains the next model, and the loop only turns one way: forward.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (*operate.COMMANDS, *training.COMMANDS, forget.forget):
    app.command()(command)
rollout.app.command()(export.export)
for name, group in (
    ("import", data.app),
    ("dataset", dataset.app),
    ("pairs", pairs.app),
    ("alerts", alerts.app),
    ("adapters", adapters.app),
    ("jobs", jobs.app),
    ("rollout", rollout.app),
    ("dlq", dlq.app),
    ("drift", drift.app),
    ("keys", keys.app),
    ("cost", cost.app),
    ("judge", judge.app),
    ("checks", checks.app),
):
    app.add_typer(group, name=name)


def run() -> None:
    """Run the command line; a failure that we foresaw ends in one sentence and exit status 1."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("ratchet").setLevel(logging.INFO)
    try:
        app()
    except RatchetError as error:
        print(f"ratchet: {error}", file=sys.stderr)  # noqa: T201 - the one sentence
        sys.exit(error.status)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "ratchet":
            raise  # ours is never missing: a defect
        needs = f"this command needs {error.name}, which is not installed"
        print(f"ratchet: {needs}: pip install 'ratchet[server,embedded,train]'", file=sys.stderr)  # noqa: T201
        sys.exit(1)


if __name__ == "__main__":
    run()
