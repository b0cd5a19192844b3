"""A bounded memory of recent things: where an inference came from, which feedback ids were taken."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from ratchet.services.rules.admission import Caller

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps the last ``capacity`` keys and forgets the oldest first."""

    def __init__(self, capacity: int) -> None:
        """Hold at most ``capacity`` entries."""
        self._capacity = capacity
        self._entries: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, or None where the key was never put or is forgotten."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember; the key counts as the newest."""
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self._capacity:
            del self._entries[next(iter(self._entries))]

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._entries)


class Origin(NamedTuple):
    """Where an inference came from."""

    tenant: str
    task: str


class Origins:
    """Where recent inferences and conversations came from, so that feedback on them need not say it.

    Inference ids are everyone's; conversation ids are an app's own choice, so two tenants may
    use the same one.
    """

    def __init__(self, capacity: int) -> None:
        """Remember at most ``capacity`` inferences and as many conversations."""
        self._inferences: Recent[str, Origin] = Recent(capacity)
        self._conversations: Recent[tuple[str, str], str] = Recent(capacity)

    def put(self, inference_id: str, conversation_id: str | None, tenant: str, task: str) -> None:
        """Note an inference, and its conversation where it has one."""
        self._inferences.put(inference_id, Origin(tenant, task))
        if conversation_id:
            self._conversations.put((tenant, conversation_id), task)

    def inference(self, id: str) -> Origin | None:
        """Where an inference came from, if it is remembered."""
        return self._inferences.get(id)

    def foreign(self, id: str | None, caller: Caller) -> bool:
        """Whether an inference is remembered as another tenant's than the caller's key's."""
        origin = self._inferences.get(id) if id and caller.bound else None
        return origin is not None and origin.tenant != caller.tenant

    def conversation(self, tenant: str, id: str) -> str | None:
        """The task of a tenant's conversation, if it is remembered."""
        return self._conversations.get((tenant, id))
