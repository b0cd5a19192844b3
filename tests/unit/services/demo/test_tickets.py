"""The demo's messages and what counts as a right answer."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.services.demo.phrases import HELDOUT, TRAIN
from ratchet.services.demo.tickets import TICKET_SCHEMA, answer, conversations, correct, messages, split, valid


@given(st.integers(0, 10_000))
def test_the_truth_is_in_the_message_and_its_own_right_answer(seed: int) -> None:
    """Whatever the seed: name, product and order number stand in the message, and the true ticket is correct."""
    for part in split(seed, 5, 5):
        for conversation in part:
            ticket = conversation.ticket
            for field in (ticket["customer"], ticket["product"], ticket["order"]):
                assert field in conversation.message
            assert correct(answer(ticket), ticket)
            assert len(conversation.message) <= 240
            jsonschema.validate(json.loads(answer(ticket)), TICKET_SCHEMA)


def test_the_same_seed_gives_the_same_conversations_and_a_longer_list_begins_with_the_shorter() -> None:
    """A demo that is run again sends the same traffic."""
    assert conversations(3, 50, "train")[:20] == conversations(3, 20, "train")
    assert conversations(3, 20, "train") != conversations(4, 20, "train")


def test_train_and_heldout_share_no_customer_product_or_phrasing() -> None:
    """What is measured on the held-out part was not learned by heart."""
    assert not set(TRAIN.products) & set(HELDOUT.products)
    assert not set(TRAIN.last_names) & set(HELDOUT.last_names)
    assert not set(TRAIN.bodies) & set(HELDOUT.bodies)
    train, heldout = split(0, 300, 100)
    assert not {c.message for c in train} & {c.message for c in heldout}
    assert len({c.id for c in train + heldout}) == 400


def test_messages_are_varied() -> None:
    """A few hundred messages are a few hundred different ones, of every urgency, from many users."""
    made = conversations(0, 300, "train")
    assert len({c.message for c in made}) == 300
    assert len({c.user for c in made}) > 200
    assert {c.ticket["urgency"] for c in made} == {"low", "normal", "high"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Sorry to hear that!",
        "null",
        "[]",
        '{"customer":"A","product":"b","order":"1"}',
        '{"customer":"A","product":"b","order":"1","urgency":"soon"}',
        '{"customer":"A","product":"b","order":1,"urgency":"low"}',
        '{"customer":"","product":"b","order":"1","urgency":"low"}',
        '{"customer":"A","product":"b","order":"1","urgency":"low","note":"x"}',
        '```json\n{"customer":"A","product":"b","order":"1","urgency":"low"}\n```',
        "[" * 100_000,
    ],
)
def test_what_is_no_ticket_is_not_valid(text: str) -> None:
    """Prose, other JSON, missing, empty, wrong and additional fields, and fences are refused."""
    assert not valid(text)


@given(
    st.text() | st.dictionaries(st.sampled_from(["customer", "product", "order", "urgency"]), st.text()).map(json.dumps)
)
def test_valid_agrees_with_the_json_schema(text: str) -> None:
    """The check that the gates use and the published schema say the same of every JSON value."""
    try:
        value = json.loads(text)
    except ValueError:
        assert not valid(text)
        return
    assert valid(text) == jsonschema.Draft202012Validator(TICKET_SCHEMA).is_valid(value)


def test_a_ticket_for_another_order_is_valid_but_not_correct() -> None:
    """The order number decides; a leading # is forgiven."""
    ticket = conversations(0, 1, "train")[0].ticket
    assert correct(json.dumps({**ticket, "order": "#" + ticket["order"]}), ticket)
    other = json.dumps({**ticket, "order": "0"})
    assert valid(other)
    assert not correct(other, ticket)


def test_the_system_prompt_comes_first() -> None:
    """Serving, training and evaluation all see the same two messages."""
    conversation = conversations(0, 1, "heldout")[0]
    assert [message["role"] for message in messages(conversation)] == ["system", "user"]
    assert messages(conversation)[1]["content"] == conversation.message
