"""Which candidates become a dataset's rows: one filter after the other, each with its count before and after.

No conversation, no prompt and no evaluation question ends up on two sides, near-duplicates included.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ratchet.consumers.rules.injections import injection, injection_in
from ratchet.consumers.rules.phrases import refusal_phrase
from ratchet.schemas.dataset_policy import Balance, DatasetPolicy
from ratchet.schemas.rows import canonical
from ratchet.trainers.rules.balancing import cut
from ratchet.trainers.rules.dataset import Candidate, drawn
from ratchet.trainers.rules.duplicates import Grammar, Near, Parts, without_template
from ratchet.trainers.rules.error_texts import error_text

Drops = Callable[[Candidate], bool]
Filter = Callable[[Sequence[Candidate]], Sequence[Candidate]]
"""Says which rows go."""
Topics = Callable[[Sequence[str]], Sequence[Hashable]]
"""Gives each text's topic."""


@dataclass(frozen=True, slots=True)
class Step:
    """One filter: how many rows it saw and how many it left."""

    filter: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The two sides of a dataset, what was left out of it by reason, and how many rows each filter saw and left."""

    train: tuple[Candidate, ...]
    holdout: tuple[Candidate, ...]
    dropped: dict[str, int]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """What `select` measures rows by, beside the policy.

    Args:
        tokens: the length of a row as the trainer will see it, template included; None: not measured.
        max_tokens: the longest that fits.
        filters: the task's own, by reason.
        topics: for `Balance` by topic.
    """

    tokens: Callable[[Candidate], int] | None = None
    max_tokens: int | None = None
    filters: Mapping[str, Filter] = field(default_factory=dict)
    topics: Topics | None = None


class _Sieve:
    """What is left, and what each filter took."""

    def __init__(self, candidates: list[Candidate]) -> None:
        self.left = candidates
        self.steps: list[Step] = []

    def drop(self, reason: str, drops: Drops) -> None:
        kept = [one for one in self.left if not drops(one)]
        self.steps.append(Step(reason, len(self.left), len(kept)))
        self.left = kept

    def drop_rows(self, reason: str, gone: Iterable[Candidate]) -> None:
        them = {id(one) for one in gone}  # two equal rows have one id, and one of them may stay
        self.drop(reason, lambda one: id(one) in them)


def select(
    candidates: Iterable[Candidate],
    evaluation: Mapping[str, str],
    policy: DatasetPolicy | None = None,
    limits: Limits | None = None,
) -> Selection:
    """Choose the rows of a dataset.

    Args:
        candidates: any order; the result does not depend on it.
        evaluation: the task's frozen evaluation prompts: their texts by `question` key.
        policy: which filters, and their thresholds.
        limits: what else rows are measured by.

    Returns:
        Both sides by row id. Reasons in ``dropped``: the steps' names, such as ``contradiction`` (two answers to a
        prompt, each preferred to the other, or one answer both good and bad: both go), ``near_holdout`` (a prompt
        nearly as one that is held out), ``user_cap``.
    """
    policy, limits = policy or DatasetPolicy(), limits or Limits()
    ordered = sorted(candidates, key=lambda one: one.id)
    held = {one.conversation_id for one in ordered if one.holdout}
    sieve = _Sieve([dataclasses.replace(one, holdout=one.conversation_id in held) for one in ordered])
    everything = sieve.left
    _quality(sieve, policy, limits)
    contradicted = _contradictions(everything)
    sieve.drop("contradiction", lambda one: _stand(one)[0] in contradicted)
    _leaks(sieve, everything, evaluation, policy.near_duplicate)
    _duplicates(sieve, policy.near_duplicate)
    _caps(sieve, policy)
    for balance in policy.balance:
        _balance(sieve, balance, limits.topics)
    dropped = Counter({step.filter: step.before - step.after for step in sieve.steps})
    return Selection(
        tuple(one for one in sieve.left if not one.holdout),
        tuple(one for one in sieve.left if one.holdout),
        {reason: n for reason, n in sorted(dropped.items()) if n},
        tuple(sieve.steps),
    )


def _quality(sieve: _Sieve, policy: DatasetPolicy, limits: Limits) -> None:
    """Rows that are no good whatever else there is."""
    sieve.drop("too_short", lambda one: any(len(text.strip()) < policy.min_chars for text in one.answers))
    if policy.error_texts:
        sieve.drop("error_text", lambda one: any(map(error_text, one.answers)))
    if policy.refusals:
        sieve.drop("refusal", lambda one: _teaches_refusal(one, policy.refusal_phrases))
    if policy.injections:
        sieve.drop("instruction_like", _instructs)
    if (tokens := limits.tokens) is not None and (most := limits.max_tokens) is not None:
        sieve.drop("too_long", lambda one: tokens(one) > most)
    for reason, goes in limits.filters.items():
        sieve.drop_rows(reason, goes(sieve.left))


def _teaches_refusal(one: Candidate, phrases: Sequence[str]) -> bool:
    """A refusal may lose, and may be called bad; it may not be what training raises."""
    return one.row.get("label") is not False and refusal_phrase(one.answers[0], phrases) is not None


def _instructs(one: Candidate) -> bool:
    return any(injection(text) for text in one.answers) or injection_in(one.row["prompt"]) is not None


def _stand(one: Candidate) -> tuple[Hashable, Hashable]:
    """What a row is about, and what it says of that: rows that agree on the first and not the second contradict."""
    if "label" in one.row:
        return (one.question, one.answers[0]), one.row["label"]
    if "chosen" in one.row:
        return (one.question, frozenset(one.answers)), one.answers[0]
    return one.id, None  # several good answers to one prompt are no contradiction


def _contradictions(candidates: Iterable[Candidate]) -> set[Hashable]:
    said: dict[Hashable, set[Hashable]] = defaultdict(set)
    for one in candidates:
        about, says = _stand(one)
        said[about].add(says)
    return {about for about, opinions in said.items() if len(opinions) > 1}


def _leaks(sieve: _Sieve, everything: Sequence[Candidate], evaluation: Mapping[str, str], near: float | None) -> None:
    """Keep out of training what evaluation or the held-out side asks, nearly so included.

    Held-out prompts count even where their own row was left out: the side of a prompt must not depend on that.
    """
    held = {one.question: one.asked for one in everything if one.holdout}
    for where, prompts in (("evaluation", evaluation), ("holdout", held)):
        sieve.drop(f"prompt_in_{where}", lambda one, known=prompts: not one.holdout and one.question in known)  # type: ignore[misc]
        if near is not None and prompts:
            sieve.drop_rows(f"near_{where}", _near_prompts(sieve.left, list(prompts.values()), near))


def _near_prompts(candidates: Sequence[Candidate], prompts: Sequence[str], threshold: float) -> list[Candidate]:
    grammar, train = Grammar(), [one for one in candidates if not one.holdout]
    texts = [[grammar.grams(text)] for text in (*prompts, *(one.asked for one in train))]
    looked_at = without_template(texts)
    near = Near(threshold)
    for parts in looked_at[: len(prompts)]:
        near.add(parts)
    return [one for one, parts in zip(train, looked_at[len(prompts) :], strict=True) if near.has(parts)]


def _duplicates(sieve: _Sieve, threshold: float | None) -> None:
    seen: set[Hashable] = set()

    def again(one: Candidate) -> bool:
        identity = (one.question, *one.answers, one.row.get("label"))
        known = identity in seen
        seen.add(identity)
        return known

    sieve.drop("duplicate", again)
    if threshold is None:
        return
    rows: list[Parts] = []
    grammar = Grammar()
    for one in sieve.left:
        rows.append([grammar.grams(text) for text in (one.asked, *one.answers)])
    # a good and a bad label on nearly the same answer are two opinions, not one
    near: dict[object, Near] = defaultdict(lambda: Near(threshold))
    gone = [
        one
        for one, parts in zip(sieve.left, without_template(rows), strict=True)
        if near[one.row.get("label")].has_or_add(parts)
    ]
    sieve.drop_rows("near_duplicate", gone)


def _caps(sieve: _Sieve, policy: DatasetPolicy) -> None:
    """At most so many rows of one user and of one conversation; those of nobody cannot be told apart."""
    caps: tuple[tuple[str, int | None, Callable[[Candidate], str]], ...] = (
        ("user_cap", policy.max_per_user, lambda one: one.user),
        ("conversation_cap", policy.max_per_conversation, lambda one: one.conversation_id),
    )
    for reason, most, whose in caps:
        if most is None:
            continue
        groups: dict[str, list[Candidate]] = defaultdict(list)
        for one in sieve.left:
            if key := whose(one):
                groups[key].append(one)
        sieve.drop_rows(reason, [one for group in groups.values() for one in _by_lot(group)[most:]])


def _balance(sieve: _Sieve, balance: Balance, topics: Topics | None) -> None:
    """On the training side alone: what is held out keeps the shares that traffic has."""
    train = [one for one in sieve.left if not one.holdout]
    classes: Sequence[Hashable]
    match balance.by:
        case "topic":
            classes = topics([one.asked for one in train]) if topics and train else [""] * len(train)
        case "label":
            classes = [one.row.get("label") for one in train]
        case "source":
            classes = [one.source for one in train]
        case _:
            classes = [canonical(one.answers[0].strip()) for one in train]
    groups: dict[Hashable, list[Candidate]] = defaultdict(list)
    for one, name in zip(train, classes, strict=True):
        groups[name].append(one)
    most = cut([len(group) for group in groups.values()], balance.max_share)
    sieve.drop_rows(f"balance_{balance.by}", [one for group in groups.values() for one in _by_lot(group)[most:]])


def _by_lot(group: Sequence[Candidate]) -> list[Candidate]:
    return sorted(group, key=lambda one: drawn(one.id))
