"""What may become training data: a task's ``[tasks.<name>.dataset]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ratchet.schemas.checks import Phrase, dotted
from ratchet.schemas.events import Closed

Share = Annotated[float, Field(ge=0, le=1)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Filter(Closed):
    """A function of yours that says which rows stay: ``package.module:function``, called with one `Answer`.

    It is called with the prompt and the answer that training would raise (``chosen`` or ``completion``) and
    returns a bool, a number from 0 to 1, or one of these with a reason. Below ``threshold`` the row goes; a row
    that it cannot judge goes too, and a build in which it cannot judge more than one row in twenty stops.
    """

    function: Annotated[str, AfterValidator(dotted)]
    threshold: Share = 0.5
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 1.0


class Balance(Closed):
    """No class may have more than ``max_share`` of the training rows; the classes with the most rows give some up.

    ``label``: good or bad (kto). ``source``: the feedback that a row was made of. ``answer``: the answer itself, for
    tasks that sort into few. ``topic``: clusters of the prompts (needs the extra ``topics``). With fewer classes
    than ``1 / max_share`` all are cut to the smallest; with one class nothing is.
    """

    by: Literal["label", "source", "answer", "topic"]
    max_share: Annotated[float, Field(gt=0, lt=1)]


class DatasetPolicy(Closed):
    """Which rows a dataset version takes; every filter's count stands in the manifest."""

    near_duplicate: Annotated[float, Field(ge=0.5, le=1)] | None = 0.8
    """Rows are one where the word 3-grams of each of their texts overlap so much (Jaccard); None: only equal ones.

    Prompts that overlap so with a held-out or a frozen evaluation prompt are kept out of training likewise.
    """
    min_chars: AtLeastOne = 1
    max_tokens: Annotated[int, Field(ge=16)] | None = None
    """Prompt (chat template included) and answer together; None: the training recipe's ``max_length``."""
    error_texts: bool = True
    """Leave out rows in which a model or a server reported a failure instead of answering."""
    refusals: bool = True
    """Leave out rows that would teach to decline; turn it off for a task that has to."""
    refusal_phrases: list[Phrase] = Field(default_factory=list)
    """The task's own, in its users' language."""
    injections: bool = True
    """Leave out rows whose texts instruct their reader."""
    max_per_user: AtLeastOne | None = 50
    """Rows that one user's feedback may decide; None: no cap."""
    max_per_conversation: AtLeastOne | None = 20
    balance: list[Balance] = Field(default_factory=list)
    filters: list[Filter] = Field(default_factory=list)

    def uncapped(self) -> DatasetPolicy:
        """The same without caps: for logs that somebody imported, whose few annotators are no brigade."""
        return self.model_copy(update={"max_per_user": None, "max_per_conversation": None})
