"""Commands that run and mend parts of the loop, from `demo` and `up` to `rebuild` and `doctor`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from ratchet.services import processes, wiring

Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]


def demo(as_json: Json = False, seed: int = 7) -> None:
    """Close the whole loop on this machine, on real parts, and report what was observed."""
    from ratchet.services.demo.run import run

    raise typer.Exit(run(as_json=as_json, seed=seed))


def up() -> None:
    """Run every part on this machine for your own traffic, until Ctrl-C."""
    from ratchet.services.stack import up as run_up

    raise typer.Exit(run_up(wiring.settings()))


def gateway() -> None:
    """Serve the OpenAI-compatible gateway."""
    processes.run_gateway(wiring.settings())


def api() -> None:
    """Serve the operators' HTTP API: where rollouts stand, why, and a person's word in them."""
    from ratchet.services.api.serve import run

    run(wiring.settings())


def consume(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="ingest, checks, judge, pairs, drift, alerts, tracking; none: all of them"),
    ] = None,
) -> None:
    """Run consumers: measure what the topics carry."""
    processes.run_consumers(wiring.settings(), names or [])


def control() -> None:
    """Run the rollout controller."""
    processes.run_controller(wiring.settings())


def train_worker() -> None:
    """Run the training worker: a training process for each job that is requested."""
    processes.run_worker(wiring.settings())


def migrate(as_json: Json = False) -> None:
    """Bring ClickHouse's tables, their retention and Kafka's topics up to date."""
    done = wiring.prepare(wiring.settings())
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(f"migrations applied: {', '.join(done.migrations) or 'none, all were'}")
        typer.echo(f"retention changed: {'; '.join(done.retention) or 'none, all is as set'}")
        typer.echo(f"topics made: {', '.join(done.topics) or 'none, all were there'}")


def rebuild(
    keep_older: Annotated[
        bool, typer.Option("--keep-older", help="carry over rows that the topics no longer hold, instead of refusing")
    ] = False,
    since: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="only read again from here on, into the tables as they are: TOPIC[:PARTITION[:OFFSET]] or "
            "TOPIC[:PARTITION]@TIME, as often as needed",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make ClickHouse again from the topics; or read a part of them once more (--from)."""
    from dataclasses import asdict

    from ratchet.consumers.taking import CARRIED
    from ratchet.services import rebuild as rebuilding
    from ratchet.services.rules.rebuilding import position

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    settings = wiring.settings()
    if since:
        if keep_older:
            raise typer.BadParameter("--from takes nothing away, so there is nothing to keep: leave out --keep-older")
        done = rebuilding.refill_from(settings, tell, [position(text, CARRIED) for text in since])
    else:
        done = rebuilding.rebuild(settings, tell, keep_older)
    if as_json:
        typer.echo(json.dumps(asdict(done), default=str))
        return
    typer.echo(f"{'':<18}{'before':>12}{'now':>12}{'kept from before':>20}")
    for view in done.views:
        typer.echo(f"{view.view:<18}{view.before:>12,}{view.after:>12,}{view.older:>20,}")
    typer.echo(f"{done.records:,} records read, {done.bad:,} of them no events, in {done.seconds:.1f} s")


def doctor(as_json: Json = False) -> None:
    """Look at every part the settings name and say what is wrong and what to do."""
    from ratchet.services.doctor import examine

    findings = examine(wiring.settings())
    if as_json:
        typer.echo(json.dumps(findings))
    else:
        for finding in findings:
            typer.echo(f"{'ok  ' if finding['ok'] else 'BAD '} {finding['part']}: {finding['says']}")
    raise typer.Exit(0 if all(finding["ok"] for finding in findings) else 1)


def emit() -> None:
    """Publish events from standard input, one JSON event a line; a bad line is named and nothing is sent."""
    from ratchet.schemas.decoding import parse_any
    from ratchet.schemas.errors import BrokerError, InvalidEvent
    from ratchet.schemas.events import Event

    events: list[Event] = []
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            try:
                events.append(parse_any(line.encode(), ("inference.v1", "feedback.v1", "score.v1")))
            except InvalidEvent as error:
                raise InvalidEvent(f"standard input, line {number}: {error}") from None
    publisher = wiring.publisher(wiring.settings(), "ratchet-emit")
    for event in events:
        publisher.publish(event)
    if publisher.flush(30):
        raise BrokerError("the broker did not take the events within 30 s; is it up? (ratchet doctor)")
    publisher.close()
    typer.echo(f"{len(events)} events published")


COMMANDS: tuple[Callable[..., Any], ...] = (
    demo,
    up,
    gateway,
    api,
    consume,
    control,
    train_worker,
    migrate,
    rebuild,
    doctor,
    emit,
)
