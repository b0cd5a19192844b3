"""`ratchet adapters lineage`: from an adapter to its events, and from an event to the adapters that saw it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ratchet.services import wiring

if TYPE_CHECKING:
    from rich.tree import Tree

    from ratchet.trainers.adapters.lineage import Descent, Rows, Traces


def lineage(
    name: Annotated[str | None, typer.Argument(help="task@vN-sha8; none with --event")] = None,
    event: Annotated[
        str | None, typer.Option(help="id of an inference, feedback, score, shadow answer or pair")
    ] = None,
    events: Annotated[bool, typer.Option("--events", help="list the ids, not only how many there are")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output, with every id")] = False,
) -> None:
    """Show what an adapter was made of and what became of it, or with --event every adapter that saw an event."""
    from dataclasses import asdict

    import orjson

    from ratchet.trainers.adapters.lineage import of_adapter, of_event

    if (name is None) == (event is None):
        raise typer.BadParameter("name an adapter, or give --event", param_hint="NAME")
    settings = wiring.settings()
    with wiring.store(settings) as store:
        down = of_adapter(store, settings.home, name) if name else None
        up = of_event(store, settings.home, event.lower()) if event else None
    if as_json:
        value = next(asdict(one) for one in (down, up) if one)
        typer.echo(orjson.dumps(value, default=_plain, option=orjson.OPT_INDENT_2))
        return
    from rich.console import Console

    tree = _adapter(down, events) if down else _event(up) if up else None
    Console(soft_wrap=True, highlight=False).print(tree)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json")


def _adapter(found: Descent, events: bool) -> Tree:
    from rich.tree import Tree

    one = found.adapter
    said = f": {one.reason}" if one.reason else ""
    tree = Tree(f"{one.name} ({one.status}{said})")
    tree.add(f"{one.method} on {one.base_model}, {one.at:%Y-%m-%d %H:%M} UTC, job {one.job_id}")
    if one.parents:
        tree.add(
            f"trained while {' and '.join(one.parents)} was stable; before: {', '.join(found.ancestors[1:]) or 'none'}"
        )
    if one.params.get("reward_adapter"):
        tree.add(f"rewarded by {one.params['reward_adapter']}")
    if found.children:
        tree.add(f"was stable while these were trained: {', '.join(found.children)}")
    data = tree.add(f"dataset {one.dataset}" + (f": {found.missing}" if found.missing else ""))
    for version in found.versions[1:]:
        data.add(f"made of {version['version']}" + (" (its rows were erased)" if version["erased"] else ""))
    for what, rows in (("trained on", found.trained), ("held out", found.held_out)):
        if rows is not None:
            _add_rows(data, what, rows, events)
    served = tree.add("served: " + (_answered(found.answers) or "nothing yet"))
    for step in found.rollouts:
        when = f"{step['at']:%Y-%m-%d %H:%M}"
        served.add(f"{when}  v{step['version']} {step['action']} {step['stage']} by {step['actor']}: {step['reason']}")
    return tree


def _add_rows(data: Tree, what: str, rows: Rows, events: bool) -> None:
    sources = ", ".join(f"{n} {source}" for source, n in rows.sources.items())
    branch = data.add(f"{what}: {rows.n} rows" + (f" ({sources})" if sources else ""))
    if events and rows.ids:
        listed = branch.add(f"{len(rows.ids)} ids of rows")
        for id in rows.ids:
            listed.add(id)
    for kind, ids in rows.events.items():
        of_kind = branch.add(f"{len(ids)} events: {kind}")
        for id in ids if events else ():
            of_kind.add(id)


def _event(found: Traces) -> Tree:
    from rich.tree import Tree

    tree = Tree(f"{found.id} ({found.kind})")
    for pair in found.pairs:
        why = f", {pair['reason']}" if pair["reason"] else ""
        tree.add(f"pair {pair['pair_id']} of task {pair['task']}: {pair['status']}{why} ({pair['split']})")
    for seen in found.datasets:
        rows = ", ".join(f"{len(ids)} {side} rows" for side, ids in seen.rows.items() if ids)
        branch = tree.add(f"dataset {seen.version} ({seen.task}, {seen.kind}): {rows}")
        for adapter in seen.adapters:
            branch.add(f"{adapter['name']} ({adapter['status']}): {adapter['saw'].replace('_', ' ')}")
    if not found.datasets:
        tree.add("in no dataset version on this machine")
    if found.erased:
        tree.add(f"versions whose rows were erased, and nobody can say: {', '.join(found.erased)}")
    for name in sorted({row["adapter"] for row in found.answers}):
        tree.add(f"{name} answered: {_answered([row for row in found.answers if row['adapter'] == name])}")
    return tree


def _answered(rows: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{row['n']} {row['stage']} ({row['first_at']:%Y-%m-%d} to {row['last_at']:%Y-%m-%d})" for row in rows
    )
