"""The demo's task: a support message in, a JSON ticket out.

The base model answers these messages in prose, a check can tell a right ticket from a wrong
one, and the right ticket is known because the message was made from it. Everything here is
deterministic: the same seed gives the same conversations on every machine.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from ratchet.services.demo.phrases import HELDOUT, TRAIN, Pool

Urgency = Literal["low", "normal", "high"]

KEYS = ("customer", "product", "order", "urgency")

SYSTEM_PROMPT = (
    "You are the support desk. Turn the customer's message into a ticket with "
    "customer, product, order and urgency (low, normal or high)."
)

TICKET_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "customer": {"type": "string", "minLength": 1},
        "product": {"type": "string", "minLength": 1},
        "order": {"type": "string", "minLength": 1},
        "urgency": {"enum": ["low", "normal", "high"]},
    },
    "required": list(KEYS),
    "additionalProperties": False,
}
"""What a valid answer looks like; `valid` and the JSON Schema check agree on it."""


class Ticket(TypedDict):
    """The truth behind one message; ``order`` is the number as written, without a leading ``#``."""

    customer: str
    product: str
    order: str
    urgency: Urgency


@dataclass(frozen=True, slots=True)
class Conversation:
    """One support conversation: who writes what, and the ticket that is right for it."""

    id: str
    user: str
    message: str
    ticket: Ticket


def split(seed: int, n_train: int, n_heldout: int) -> tuple[list[Conversation], list[Conversation]]:
    """Make training and held-out conversations that share no customer, product or phrasing.

    Args:
        seed: any integer; the same seed gives the same conversations.
        n_train: how many training conversations.
        n_heldout: how many held-out conversations.

    Returns:
        ``(train, heldout)``, with ids ``train-<seed>-<n>`` and ``heldout-<seed>-<n>``.
    """
    return conversations(seed, n_train, "train"), conversations(seed, n_heldout, "heldout")


def conversations(seed: int, n: int, part: Literal["train", "heldout"]) -> list[Conversation]:
    """Make ``n`` conversations of one part; a longer list begins with the shorter one."""
    pool = TRAIN if part == "train" else HELDOUT
    # Text seeds are hashed with SHA-512, so they do not depend on PYTHONHASHSEED.
    random_ = random.Random(f"tickets/{part}/{seed}")  # noqa: S311 - varied text, no secret
    made = []
    for number in range(n):
        ticket = _ticket(random_, pool)
        message = _message(random_, pool, ticket)
        user = ticket["customer"].lower().replace(" ", ".")
        made.append(Conversation(f"{part}-{seed}-{number:04d}", user, message, ticket))
    return made


def messages(conversation: Conversation) -> list[dict[str, str]]:
    """Put the task's system prompt before the customer's message, as the gateway sends it."""
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": conversation.message}]


def answer(ticket: Ticket) -> str:
    """Write a ticket the way the model shall answer: compact JSON, keys in the order of `KEYS`."""
    return json.dumps({key: dict(ticket)[key] for key in KEYS}, separators=(",", ":"), ensure_ascii=False)


def valid(answer: str) -> bool:
    """Say whether an answer is a ticket: JSON alone, exactly the keys, texts, a known urgency."""
    return _read(answer) is not None


def correct(answer: str, ticket: Ticket) -> bool:
    """Say whether an answer is a valid ticket for the right order number (a leading ``#`` is forgiven)."""
    found = _read(answer)
    return found is not None and found["order"].strip().removeprefix("#") == ticket["order"]


def _read(text: str) -> dict[str, str] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or set(value) != set(KEYS):
        return None
    if not all(isinstance(field, str) and field for field in value.values()):
        return None
    return value if value["urgency"] in ("low", "normal", "high") else None


def _ticket(random_: random.Random, pool: Pool) -> Ticket:
    urgency: Urgency = random_.choices(("low", "normal", "high"), weights=(1, 2, 1))[0]
    return {
        "customer": f"{random_.choice(pool.first_names)} {random_.choice(pool.last_names)}",
        "product": random_.choice(pool.products),
        "order": _order_number(random_),
        "urgency": urgency,
    }


def _order_number(random_: random.Random) -> str:
    digits = str(random_.randrange(10_000, 100_000))
    letters = "".join(random_.choices("ABCDEFGHJKLMNPRSTUVWXYZ", k=2))
    return random_.choice(
        (digits, digits, f"{letters}-{digits[:4]}", f"{letters}{digits[:4]}", f"{digits[:4]}-{letters}")
    )


def _message(random_: random.Random, pool: Pool, ticket: Ticket) -> str:
    """Write one message: greeting, who it is, what is wrong, how urgent, goodbye; some noise."""
    order = random_.choice(("#{0}", "{0}", "number {0}", "no. {0}")).format(ticket["order"])
    body = random_.choice(pool.bodies).format(product=ticket["product"], order=order)
    urgency = random_.choice(pool.urgencies[ticket["urgency"]])
    greeting, closing = random_.choice(pool.greetings), random_.choice(pool.closings)
    if random_.random() < 0.5:
        introduction = random_.choice(pool.introductions).format(customer=ticket["customer"])
        parts = [greeting, introduction, body, urgency, closing.replace(",", ".")]
    else:
        parts = [greeting, body, urgency, f"{closing} {ticket['customer']}" if closing else f"- {ticket['customer']}"]
    text = " ".join(part for part in parts if part)
    # People who write in a hurry drop capitals and full stops; names and numbers stay as they are.
    return text.replace(". ", " ").rstrip(".") if random_.random() < 0.15 else text
