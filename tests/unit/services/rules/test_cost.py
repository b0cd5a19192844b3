"""What calls cost, and what is not known."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.infra.clock import new_id, now
from ratchet.schemas.events import Feedback, Inference, Shadow
from ratchet.schemas.policies import TaskPolicy
from ratchet.schemas.pricing import Price, cost_usd
from ratchet.services.rules.cost import PriceList, spent

prices = st.builds(
    Price, prompt_per_million=st.floats(0, 1e6, width=64), completion_per_million=st.floats(0, 1e6, width=64)
)
tokens = st.integers(0, 10**9)
LOW = Price(prompt_per_million=1, completion_per_million=2)
MIDDLE = Price(prompt_per_million=3, completion_per_million=4)
HIGH = Price(prompt_per_million=5, completion_per_million=6)
ADAPTER = "support@v1-aaaaaaaa"


@given(prices, tokens, tokens)
def test_a_cost_is_the_exact_one_but_for_rounding(price: Price, prompt: int, completion: int) -> None:
    """Beside exact fractions a float's cost is off by a few of its last digits; without tokens it is unknown."""
    cost = cost_usd(price, prompt, completion)
    if prompt == completion == 0:
        assert cost is None
        return
    exact = (
        Fraction(price.prompt_per_million) * prompt + Fraction(price.completion_per_million) * completion
    ) / 1_000_000
    assert cost is not None
    assert abs(Fraction(cost) - exact) <= exact * Fraction(1, 10**15) + Fraction(1, 10**300)


@given(prices, tokens, tokens, tokens)
def test_more_tokens_never_cost_less(price: Price, prompt: int, completion: int, more: int) -> None:
    """The cost grows with either count."""
    base = cost_usd(price, prompt, completion) or 0.0
    assert (cost_usd(price, prompt + more, completion) or 0.0) >= base
    assert (cost_usd(price, prompt, completion + more) or 0.0) >= base


def test_without_a_price_a_cost_is_unknown_and_a_free_model_costs_nothing() -> None:
    """No price is no 0; a price of 0 is one."""
    assert cost_usd(None, 10, 10) is None
    assert cost_usd(Price(prompt_per_million=0, completion_per_million=0), 10, 10) == 0.0


def call(kind: type[Any] = Inference, **fields: Any) -> Any:
    """A call with token counts."""
    shadow = {"rollout_id": new_id(), "inference_id": new_id()} if kind is Shadow else {"stage": "stable"}
    return kind.model_validate(
        {
            "id": new_id(), "at": now(), "task": "support", "adapter": ADAPTER, "base_model": "tiny",
            "request": {"prompt": "x"}, "status": "ok", "latency_ms": 1, "prompt_tokens": 10, "completion_tokens": 1,
            "source": "gateway",
        } | shadow | fields
    )  # fmt: skip


@pytest.mark.parametrize("kind", [Inference, Shadow])
def test_the_nearest_price_counts(kind: type[Any]) -> None:
    """A task's own price is over its adapter's, that over the base model's, and a cost that is named stays."""
    models = {"tiny": LOW, ADAPTER: MIDDLE}
    own = PriceList(models, {"support": TaskPolicy(price=HIGH)})
    plain = PriceList(models, {"support": TaskPolicy()})
    assert own.price(call(kind)).cost_usd == pytest.approx(56e-6)
    assert plain.price(call(kind)).cost_usd == pytest.approx(34e-6)
    assert plain.price(call(kind, adapter="base")).cost_usd == pytest.approx(12e-6)
    assert plain.price(call(kind, adapter="base", base_model="other")).cost_usd is None
    assert plain.price(call(kind, cost_usd=0.5)).cost_usd == 0.5
    assert plain.price(call(kind, prompt_tokens=0, completion_tokens=0)).cost_usd is None


def test_other_events_pass() -> None:
    """Feedback has no cost."""
    fields = {"id": new_id(), "at": now(), "task": "support", "inference_id": new_id(), "kind": "thumb", "value": True}
    event = Feedback.model_validate(fields | {"source": "http"})
    assert PriceList({}, {}).price(event) is event


def test_the_report_shows_what_is_known_and_how_much_is_not() -> None:
    """Means are over calls of known cost, a judge's that none was stored for are priced now, unknown stays unknown."""
    unpriced = {"known": 0, "cost_usd": None, "unpriced": 2}
    unpriced |= {"unpriced_prompt_tokens": 10, "unpriced_completion_tokens": 1}
    row = {"task": "t", "n": 4, "prompt_tokens": 10, "completion_tokens": 1}
    rows = [
        row | {"use": "production", "name": "base", "known": 3, "cost_usd": 0.6},
        row | {"use": "shadow", "name": ADAPTER, "known": 0, "cost_usd": None},
        row | unpriced | {"use": "judge", "name": "tiny"},
        row | unpriced | {"use": "judge", "name": "other"},
        row | unpriced | {"use": "judge", "name": "tiny", "known": 2, "cost_usd": 0.5},
    ]
    found = spent(rows, {"tiny": LOW})
    assert [(one.cost_usd, one.per_request_usd, one.unknown) for one in found] == [
        (0.6, pytest.approx(0.2), 0.25),
        (None, None, 1.0),
        (pytest.approx(12e-6), pytest.approx(6e-6), 0.5),
        (None, None, 1.0),
        (pytest.approx(0.500012), pytest.approx(0.125003), 0.0),
    ]
