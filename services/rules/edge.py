"""What somebody's own edge routes a task by: the arms of its routing table, and where their servers are. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from ratchet.schemas.edge_policy import Address, EdgePolicy
from ratchet.schemas.errors import RolloutError, SettingsError
from ratchet.schemas.ids import ADAPTER_NAME, BASE
from ratchet.schemas.rollout_events import Rollout
from ratchet.services.rules.routing import under_way

HEADER = "x-ratchet-adapter"
"""The request header that names the arm's adapter to its server, and the response header that names it to the app."""

_SAFE = re.compile(r"[A-Za-z0-9@._:\[\]/-]{1,512}")
_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)


@dataclass(frozen=True)
class Arm:
    """One side of the split: its adapter (or ``base``) and its servers, ``host:port``, at least one."""

    adapter: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class EdgeRouting:
    """A task's routing as an edge can follow it.

    ``version`` is the routing table's, 0 where the task never had one. ``candidate`` is None where no user's request
    goes to one, so that an edge need not resolve the name of a server that is not up yet. ``rollout_id`` is the
    rollout under way that requests count for. ``salt`` is the table's, hashed: the same for a whole rollout.
    """

    task: str
    version: int
    salt: str
    weight_bp: int
    stable: Arm
    candidate: Arm | None = None
    rollout_id: str | None = None


def edge_routing(
    task: str, table: Rollout | None, policy: EdgePolicy, replicas: Callable[[str], Sequence[str]]
) -> EdgeRouting:
    """What an edge does with a routing table.

    Args:
        task: the task's name.
        table: its routing table; None: nothing was ever rolled out, the base model answers.
        policy: the task's own settings of its edge.
        replicas: the URLs of the model servers that Ratchet placed an adapter (or ``base``) on.

    Raises:
        SettingsError: a model server's address is none that an edge can be given.
    """
    if table is None:
        return EdgeRouting(task, 0, "", 0, _arm(BASE, policy, replicas))
    trying = under_way(table)
    arm = _arm(table.candidate, policy, replicas) if trying and table.candidate and table.weight_bp else None
    return EdgeRouting(
        task,
        table.version,
        hashlib.sha256(table.salt.encode()).hexdigest()[:16],
        table.weight_bp if arm else 0,
        _arm(table.stable, policy, replicas),
        arm,
        table.rollout_id if trying else None,
    )


def word(value: str) -> str:
    """``value`` itself, if neither nginx nor YAML can read anything else than a word in it.

    Raises:
        RolloutError: it holds a character that is refused.
    """
    if not _SAFE.fullmatch(value):
        raise RolloutError(f"{value!r} cannot be written into an edge's file; allowed: letters, digits and @._:[]/-")
    return value


def _arm(adapter: str, policy: EdgePolicy, replicas: Callable[[str], Sequence[str]]) -> Arm:
    if adapter == BASE:
        written = policy.base
    else:
        named = ADAPTER_NAME.fullmatch(adapter)
        if named is None:
            raise RolloutError(f"{adapter!r} names no adapter; allowed: {BASE!r} or <task>@v<number>-<8 hex digits>")
        written = [_filled(upstream, named.groupdict()) for upstream in policy.upstreams]
    addresses = tuple(written or map(_address, replicas(adapter)))
    if not addresses:
        raise SettingsError(f"no server of {adapter} is known; set tasks.<name>.edge.upstreams and .base")
    for address in addresses:
        try:
            _ADDRESS.validate_python(address)
        except ValidationError:
            raise SettingsError(f"{address!r} is no server of {adapter}; allowed: host:port") from None
    return Arm(adapter, addresses)


def _filled(upstream: str, parts: dict[str, str]) -> str:
    for name, part in parts.items():
        upstream = upstream.replace(f"{{{name}}}", part)
    return upstream


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.username or parts.path.strip("/"):
        raise SettingsError(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}: an edge is given http://host[:port]"
            " alone; name the servers of your edge in tasks.<name>.edge.upstreams and .base"
        )
    return parts.netloc if parts.port else f"{parts.netloc}:80"
