"""Errors, named for the boundary that was crossed and the action that follows."""

from __future__ import annotations


class RatchetError(Exception):
    """Base of every error that Ratchet raises on purpose; its text is one sentence for a person.

    ``status`` is what a command that ends with it exits with.
    """

    status = 1


class SettingsError(RatchetError):
    """A setting is wrong: names the key, the value and what is allowed."""


class StartError(RatchetError):
    """A part could not start (port taken, model missing, disk full); the process ends with this sentence."""


class KeysError(RatchetError):
    """The key file cannot be read or changed, or has no such key: whoever asked stays outside."""


class InvalidEvent(RatchetError):
    """Bytes that are no event of the expected schema: dead-letter them with this reason."""


class FloodError(RatchetError):
    """More bad messages than a consumer may dead-letter: stop it, a person must look."""

    status = 3


class BrokerError(RatchetError):
    """Kafka refused or is away: keep the event and try again."""


class NotLeading(RatchetError):
    """Another process leads: this one follows, and writes nothing."""


class StoreError(RatchetError):
    """ClickHouse refused or is away: do not commit, try again."""


class StoreRefused(StoreError):
    """ClickHouse answered, and refused: the statement or its data is at fault, not the connection."""


class ModelError(RatchetError):
    """The model server refused or is away."""


class AdapterRefused(ModelError):
    """An adapter's files are not those that were registered: it is loaded nowhere."""


class ArtifactError(RatchetError):
    """The artifact store refused, is away, or holds other files than were published: keep yours and try again."""


class DatasetError(RatchetError):
    """Training data that cannot be used: names the file, the line and the reason."""


class TrainingError(RatchetError):
    """A training run that must stop (non-finite loss, nothing to learn from)."""


class TrainingInterrupted(TrainingError):
    """A training run that something else ended (killed, out of memory): worth another try, up to a cap."""


class TrainingCancelled(TrainingError):
    """A training that a person ended; the text says who and why."""


class TrackingError(RatchetError):
    """The experiment tracker refused or is away: keep the event and try again."""


class RebuildError(RatchetError):
    """ClickHouse cannot be made again from the topics as asked: nothing was changed."""


class RolloutError(RatchetError):
    """An operation that the rollout's state does not allow."""


class HookError(RatchetError):
    """A rollout's hook did not take what it was told: tell it again."""


class EdgeRefused(RatchetError):
    """Your own edge's check, reload or answer says no: what it routed by before stays in force, try again."""


class FunctionFailed(RatchetError):
    """A task's own function gave no value (it raised, hung or died): the check abstains with this reason."""
