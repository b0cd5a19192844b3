"""How a task's own edge (nginx, or what speaks the Gateway API) reaches its adapters, and who sticks to an arm.

Set under ``[tasks.<name>.edge]``; read by `ratchet rollout export` alone.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ratchet.schemas.events import Closed

HOST = r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
PORT = r"[1-9][0-9]{0,4}"
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PART = r"\{(?:task|number|sha8)\}"
Address = Annotated[str, Field(pattern=rf"^(?:{HOST}|\[[0-9A-Fa-f:]{{2,39}}\]):{PORT}$", description="host:port")]
Upstream = Annotated[
    str,
    Field(
        pattern=rf"^(?:[A-Za-z0-9.-]|{_PART})+:{PORT}$",
        description="host:port; {task}, {number} and {sha8} stand for the parts of the adapter's name",
        examples=["{task}-v{number}-{sha8}.models.svc:8000"],
    ),
]


class EdgePolicy(Closed):
    """What `ratchet rollout export` writes for this task besides its routing table."""

    upstreams: list[Upstream] = Field(
        default_factory=list,
        description="the servers of an adapter; none: the model servers that Ratchet itself manages",
    )
    base: list[Address] = Field(
        default_factory=list, description="the servers of the base model; none: the model servers of Ratchet"
    )
    sticky: list[Annotated[str, Field(pattern=r"^\$[a-z][a-z0-9_]{0,63}$")]] = Field(
        default_factory=lambda: ["$http_x_ratchet_user", "$remote_addr"],
        min_length=1,
        description="nginx variables; the first one that is not empty is what a client sticks to an arm by",
    )
    gateway: Annotated[str, Field(pattern=rf"^(?:{_LABEL}/)?{_LABEL}$")] | None = Field(
        None, description="Gateway API: [namespace/]name of the Gateway that the route is attached to"
    )
    hostnames: list[Annotated[str, Field(pattern=rf"^(?:\*\.)?{_LABEL}(?:\.{_LABEL})*$")]] = Field(
        default_factory=list, description="Gateway API: of this task; none: every one of the Gateway's"
    )
