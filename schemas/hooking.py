"""Who is asked before a rollout's transition and told after it: a `HookSettings` a ``[rollout_hooks.<name>]``."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from ratchet.schemas.alerting import Receiver, SigningSecret, shown
from ratchet.schemas.ids import TaskName
from ratchet.schemas.rollout_events import RolloutAction


class HookSettings(BaseModel):
    """One receiver of transitions.

    ``url`` is a secret as a whole: it may hold a password or a token.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Receiver = Field(description="http(s)://[user:password@]host[:port][/path]")
    when: Literal["before", "after", "both"] = "both"
    actions: Annotated[list[RolloutAction], Field(min_length=1)] = Field(
        default_factory=lambda: [action for action in get_args(RolloutAction) if action not in ("prove", "allocate")],
        description="without it all but prove and allocate",
    )
    tasks: list[TaskName] = Field([], description="empty: all")
    on_error: Literal["allow", "veto"] = Field(
        "veto", description="where `before` gets no answer that says yes or no; nothing unapproved moves forward"
    )
    retry_s: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        60.0, description="`before` is asked again of a transition that still waits after so long"
    )
    timeout_s: Annotated[float, Field(gt=0, le=120)] = Field(10.0, description="of one try, name lookup and all")
    secret: SigningSecret | None = Field(
        None, repr=False, description="signs what is sent (HMAC-SHA256): whsec_ and 24 to 64 bytes in base64"
    )
    allow_private: bool = Field(False, description="loopback and private addresses may be connected to")

    @property
    def shown(self) -> str:
        """Where it goes, without what is secret of it: scheme, host and port."""
        return shown(self.url)
