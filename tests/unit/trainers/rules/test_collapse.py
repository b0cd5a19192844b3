"""When rewards say that a run goes wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.trainers.rules.collapse import displaced, fall, still

REWARDS = st.floats(-50, 50)
RULE: dict[str, Any] = {"beta": 0.1, "tokens": 10.0, "most": 2.0, "logs": 3}


def lines(*chosen: float) -> list[dict[str, float]]:
    """Progress with these rewards of the better answers; the worse ones lose more."""
    return [{"chosen_reward": reward, "rejected_reward": reward - 1, "lr": 1e-3} for reward in chosen]


def test_the_fall_is_in_nats_a_token() -> None:
    """Reward -3 at beta 0.1 is 30 nats; over 10 tokens 3 nats each."""
    assert fall(-3.0, beta=0.1, tokens=10.0) == pytest.approx(3.0)


def test_a_fall_that_lasts_ends_a_run() -> None:
    """Three lines in a row beyond the threshold, whatever came before; the reason has both sides' figures."""
    why = displaced(lines(0.5, -2.5, -2.6, -3.0), **RULE)
    assert why is not None
    assert "3 nats a token" in why
    assert "the worse ones 4" in why


@pytest.mark.parametrize("chosen", [(-2.5, -2.6), (-2.5, -2.6, -1.9), (-2.5, -1.9, -2.5, -2.5), (3.0, 4.0, 5.0)])
def test_a_fall_that_is_short_or_small_does_not(chosen: tuple[float, ...]) -> None:
    """Fewer lines than asked for, or one of the last above the threshold: the run goes on."""
    assert displaced(lines(*chosen), **RULE) is None


def test_lines_without_a_wanted_answer_are_passed_over() -> None:
    """A batch of kto may have none: it neither ends a run nor saves it."""
    told = lines(-2.5, -2.6, -3.0)
    told.insert(2, {"rejected_reward": -1.0, "lr": 1e-3})
    assert displaced(told, **RULE) is not None


@given(st.lists(REWARDS, max_size=12), st.floats(0.01, 1), st.floats(1, 200), st.floats(0, 5), st.integers(1, 6))
def test_it_ends_exactly_where_every_late_fall_is_too_far(
    chosen: list[float], beta: float, tokens: float, most: float, logs: int
) -> None:
    """The rule is its definition; 0 never ends a run, and likelihood that was gained never does."""
    late = chosen[-logs:]
    far = len(chosen) >= logs and all(-reward / (beta * tokens) > most for reward in late)
    assert (displaced(lines(*chosen), beta=beta, tokens=tokens, most=most, logs=logs) is not None) == (far and most > 0)
    gained = [abs(reward) for reward in chosen]
    assert displaced(lines(*gained), beta=beta, tokens=tokens, most=most, logs=logs) is None


@given(st.lists(REWARDS, min_size=4, max_size=12), st.floats(0.1, 10))
def test_beta_is_no_part_of_how_far_it_fell(chosen: list[float], times: float) -> None:
    """The same log-probabilities under another beta are the same fall."""
    scaled = lines(*(reward * times for reward in chosen))
    one, other = (fall(told[-1]["chosen_reward"], beta=beta, tokens=10.0) for told, beta in
                  ((lines(*chosen), 0.1), (scaled, 0.1 * times)))  # fmt: skip
    assert one == pytest.approx(other, abs=1e-9)


def same(*lr: float) -> list[dict[str, float]]:
    """Lines with a margin of exactly 0, at these learning rates; both rewards may move."""
    return [
        {"chosen_reward": 0.1 * n, "rejected_reward": 0.1 * n, "reward_margin": 0.0, "lr": r} for n, r in enumerate(lr)
    ]


def test_no_margin_at_all_ends_a_run() -> None:
    """So many lines whose answers were rewarded exactly alike, with a rate above 0 in the line before each."""
    assert still(same(*[1e-3] * 4), logs=3) is not None
    assert still(same(*[1e-3] * 3), logs=3) is None
    assert still(same(*[1e-3] * 9), logs=0) is None


def test_a_rate_of_0_is_not_waited_for() -> None:
    """Warm-up begins at 0, and an adapter begins as nothing: their lines do not count."""
    assert still(same(0.0, 0.0, 0.0, 0.0, 1e-3, 1e-3), logs=3) is None


@given(st.lists(st.sampled_from([0.0, 1e-7, -0.3]), min_size=5, max_size=15))
def test_any_difference_among_the_last_lines_is_enough(margins: list[float]) -> None:
    """However small, it is a gradient."""
    told = [
        {"chosen_reward": margin, "rejected_reward": 0.0, "reward_margin": margin, "lr": 1e-3} for margin in margins
    ]
    assert (still(told, logs=4) is None) == any(margins[-4:])


def test_of_one_sided_batches_the_rewards_themselves_count() -> None:
    """Batches of kto with one side alone have no margin."""
    nothing = [{"chosen_reward": 0.0, "lr": 1e-3}, {"rejected_reward": 0.0, "lr": 1e-3}] * 3
    assert still(nothing, logs=4) is not None
    assert still([*nothing, {"rejected_reward": 0.01, "lr": 1e-3}], logs=4) is None
