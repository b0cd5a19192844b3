"""Calibration proved on real labels: GPT-3.5's verdicts on PandaLM against the majority of three human annotators.

`python tests/unit/consumers/test_pandalm.py` prints the figures of docs/experiments.md.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ratchet.consumers.calibration import Corrected, Scored, correct
from ratchet.consumers.rules.calibration import Sums
from ratchet.consumers.rules.standing import Calibration, Labelled, calibrate, standing, tally
from ratchet.schemas.judging import JudgePolicy

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
HUMAN, JUDGE = DATA / "pandalm-testset-v1.json", DATA / "pandalm-gpt-3.5-turbo-verdicts.json"
VERDICTS = {"1": 1.0, "2": 0.0, "Tie": 0.5}
"""The judge's word as a score of the first response; 25 verdicts are unreadable: it abstains there."""
NOW = datetime(2026, 11, 25, tzinfo=UTC)
ROUNDS = 400


@dataclass(frozen=True)
class Item:
    """A pair of responses: is the first better, by the majority, and as the judge says (None: unreadable)?"""

    human: float
    judge: float | None


def items() -> list[Item]:
    """The 999 pairs; 0.5 is a tie."""
    if not (HUMAN.is_file() and JUDGE.is_file()):
        pytest.skip(f"no PandaLM test set in {DATA}")
    said = {one["idx"]: VERDICTS.get(one["gpt_result"]) for one in json.loads(JUDGE.read_text())}
    words = {0: 0.5, 1: 1.0, 2: 0.0}
    found = []
    for one in json.loads(HUMAN.read_text()):
        votes = Counter(one[f"annotator{number}"] for number in (1, 2, 3))
        (vote, times) = votes.most_common(1)[0]
        assert times >= 2  # all three never differ in this set
        found.append(Item(words[vote], said[one["idx"]]))
    return found


def wins(some: Sequence[Item]) -> list[tuple[float, float]]:
    """The two-class question "is the first response better?" as (label, score): a tie is a no; without abstentions."""
    return [(float(one.human == 1.0), float(one.judge == 1.0)) for one in some if one.judge is not None]


def measure(labelled: Sequence[tuple[float, float]]) -> Calibration:
    """The judge's calibration by these labels."""
    return calibrate("pandalm", "gpt-3.5-turbo", "pandalm", "", tally(Labelled(y, f) for y, f in labelled))


def figures(measured: Calibration, rest: Sequence[tuple[float, float]]) -> Corrected:
    """The win rate over the labelled pairs and the rest."""
    n, good = len(rest), sum(f for _, f in rest)
    unlabelled = Sums(n=n, w=n, ww=n, wf=good, wwf=good, wwff=good)
    scores = unlabelled + measured.labelled  # 0 or 1: each is its own indicator
    return correct(measured, Scored(scores, scores, unlabelled))


def test_gpt_35_against_the_human_majority() -> None:
    """999 pairs: agreement in three classes and κ, error rates in two, and the advisory standing that they give."""
    pairs = items()
    three = measure([(one.human, one.judge) for one in pairs if one.judge is not None])
    agree = sum(one.human == one.judge for one in pairs if one.judge is not None)
    assert (len(pairs), sum(one.judge is None for one in pairs), agree) == (999, 25, 697)
    assert three.weighted_kappa is not None
    assert three.weighted_kappa.value == pytest.approx(0.588, abs=0.001)
    assert (three.weighted_kappa.low, three.weighted_kappa.high) == pytest.approx((0.539, 0.638), abs=0.001)
    two = measure(wins(pairs))
    assert (two.n, two.both_good, two.judge_only_good, two.people_only_good, two.both_bad) == (974, 332, 128, 84, 430)
    assert two.agreement is not None
    assert two.agreement.value == pytest.approx(762 / 974)
    assert two.kappa is not None
    assert two.kappa.value == pytest.approx(0.561, abs=0.001)
    assert two.sensitivity is not None
    assert two.specificity is not None
    assert (two.sensitivity.n, two.specificity.n) == (416, 558)
    assert two.sensitivity.value == pytest.approx(332 / 416)
    assert two.specificity.value == pytest.approx(430 / 558)
    assert standing(two, JudgePolicy(), NOW).trusted
    assert not standing(two, JudgePolicy(agreement_floor=0.8), NOW).trusted


def test_the_corrected_win_rate_is_the_humans() -> None:
    """With 200 of the labels the corrected intervals hold the human rate; the naive one, of 974 verdicts, does not."""
    pairs = wins(items())
    human = sum(y for y, _ in pairs) / len(pairs)
    random.Random(1).shuffle(pairs)
    found = figures(measure(pairs[:200]), pairs[200:])
    assert found.naive is not None
    assert found.rate is not None
    assert found.tuned is not None
    assert found.naive.low > human
    assert found.rate.low <= human <= found.rate.high
    assert found.tuned.low <= human <= found.tuned.high


def coverage(pairs: list[tuple[float, float]], n: int, rounds: int) -> dict[str, Any]:
    """Over seeded draws of n labels: how often each interval holds the human rate, and how wide it is."""
    human = sum(y for y, _ in pairs) / len(pairs)
    rng = random.Random(2026)
    sums = {name: [0, 0.0, 0] for name in ("labels", "rate", "mean", "tuned")}
    trusted = 0
    for _ in range(rounds):
        drawn = rng.sample(pairs, len(pairs))
        labelled, rest = drawn[:n], drawn[n:]
        measured = measure(labelled)
        found = figures(measured, rest)
        trusted += standing(measured, JudgePolicy(), NOW).trusted
        alone = figures(measured, []).tuned
        for name, one in (("labels", alone), ("rate", found.rate), ("mean", found.mean), ("tuned", found.tuned)):
            if one is None:
                continue
            row = sums[name]
            row[0] += one.low <= human <= one.high
            row[1] += one.high - one.low
            row[2] += 1
    shares = {name: (held / k, width / k, k) for name, (held, width, k) in sums.items() if k}
    return {"n": n, "trusted": trusted / rounds, "human": human} | shares


def test_few_labels_cover_too() -> None:
    """Over 200 seeded draws of 50 and of 200 labels each corrected interval holds the human rate 92% of times."""
    pairs = wins(items())
    for n in (50, 200):
        found = coverage(pairs, n, 200)
        for name in ("rate", "mean", "tuned"):
            assert found[name][0] >= 0.92, (n, name, found[name])


if __name__ == "__main__":
    everything = wins(items())
    print(measure([(one.human, one.judge) for one in items() if one.judge is not None]).as_json())
    print(measure(everything).as_json())
    print(figures(measure(everything), []).as_json())
    for count in (50, 100, 200, len(everything)):
        print(coverage(everything, count, 1 if count == len(everything) else ROUNDS))
