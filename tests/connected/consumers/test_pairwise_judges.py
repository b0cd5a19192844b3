"""Several judges, repeated samples, and judges that were away: what becomes of a comparison."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from judge_server import JudgeServer, says
from mirrored import mirrored, policy, put, scores

from ratchet.consumers.compared import compare
from ratchet.consumers.pairwise import Pairwise
from ratchet.infra.clickhouse.client import Store, connect
from ratchet.infra.clickhouse.migrate import migrate
from ratchet.infra.clock import now
from ratchet.infra.judge import JudgeClient
from ratchet.infra.kafka.memory import MemoryPublisher
from ratchet.schemas.events import Score
from ratchet.schemas.policies import TaskPolicy


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    """A judge that prefers the answer that says Good, says C where none or both do, with probabilities."""

    def compared(body: dict[str, Any]) -> Any:
        data = json.loads(body["messages"][1]["content"].splitlines()[1])
        good = [str(data[name]).startswith("Good") for name in ("answer_a", "answer_b")]
        letter = "C" if good[0] == good[1] else "A" if good[0] else "B"
        return says(letter, top={letter: 0.8, "C" if letter != "C" else "A": 0.2})

    served = JudgeServer(compared)
    yield served
    served.close()


@pytest.fixture
def store(clickhouse: str) -> Iterator[Store]:
    """The embedded ClickHouse, with its tables."""
    with connect(clickhouse) as made:
        migrate(made)
        yield made


@pytest.fixture
def task() -> str:
    """A task that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"


def pairwise(
    store: Store, task: str, out: Any, server: JudgeServer, tasks: dict[str, TaskPolicy] | None = None, **more: Any
) -> Pairwise:
    """A judge of the task, as a process starts it."""
    client = JudgeClient(server.url, "the-judge", retries=0, **more)
    return Pairwise(store, {task: (tasks or policy())[""]}, out, {"default": client})


def prefers(letter: str) -> JudgeServer:
    """A judge with probabilities: in the first order it says this letter, in the second the other way round."""
    turned = {"A": "B", "B": "A", "C": "C"}[letter]

    def compared(body: dict[str, Any]) -> Any:
        first = json.loads(body["messages"][1]["content"].splitlines()[1])["answer_a"] == "new"
        return says(letter if first else turned, top={letter if first else turned: 0.9, "C": 0.1})

    return JudgeServer(compared)


@pytest.mark.parametrize(
    ("words", "verdict", "score"), [("AAB", "win", 1.0), ("ABC", "tie", 0.5), ("BBA", "loss", 0.0)]
)
async def test_a_panel_says_what_more_than_half_of_it_say(
    store: Store, task: str, words: str, verdict: str, score: float
) -> None:
    """Every judge's orders and word are kept, then the panel's; where no side has more than half it is a tie."""
    served, copied = mirrored(task, "old", "new")
    put(store, served, copied)
    servers = [prefers(letter) for letter in words]
    clients = {f"j{n}": JudgeClient(one.url, f"judge-{n}", retries=0) for n, one in enumerate(servers)}
    out = MemoryPublisher()
    judging = Pairwise(store, {task: policy(judges=list(clients))[""]}, out, clients)
    assert await judging.look() == 1
    *_, word = said = scores(out)
    assert len(said) == 10
    assert (word.judge, word.verdict, word.score) == ("panel:judge-0+judge-1+judge-2", verdict, score)
    assert [one.verdict for one in said if one.judge == "judge-0" and one.rubric == "pairwise.v1"] == [
        {"A": "win", "B": "loss", "C": "tie"}[words[0]]
    ]
    put(store, *said)
    assert len(compare(store, task=task)) == 4, "each judge's rate beside the panel's"
    later = Pairwise(store, {task: policy(judges=list(clients))[""]}, MemoryPublisher(), clients)
    assert await later.look() == 0, "the panel's word is the one that is looked for"
    for one in servers:
        one.close()


async def test_a_panel_with_too_few_words_has_none(store: Store, server: JudgeServer, task: str) -> None:
    """One of two is away: the panel abstains and says so, and with a quorum of two of three it would not."""
    served, copied = mirrored(task, "old", "Good new")
    put(store, served, copied)
    away = JudgeServer(lambda body: (503, {"error": {"message": "overloaded"}}))
    urls = {"a": server.url, "b": server.url, "c": away.url}
    clients = {name: JudgeClient(url, f"judge-{name}", retries=0) for name, url in urls.items()}
    for judges, quorum, verdict in ((["a", "c"], None, "abstain"), (["a", "b", "c"], 2, "win")):
        out = MemoryPublisher()
        await Pairwise(store, {task: policy(judges=judges, quorum=quorum)[""]}, out, clients).look()
        assert scores(out)[-1].verdict == verdict
    away.close()


async def test_a_cascade_asks_the_next_judge_where_one_is_not_sure(store: Store, task: str) -> None:
    """The small judge contradicts itself (a tie at a probability of a half): the large one has the word."""
    served, copied = mirrored(task, "old", "new")
    put(store, served, copied)
    small, large = JudgeServer(lambda body: says("A", top={"A": 0.9, "B": 0.1})), prefers("A")
    clients = {"small": JudgeClient(small.url, "small"), "large": JudgeClient(large.url, "large")}
    out = MemoryPublisher()
    tasks = {task: policy(judges=["small", "large"], combine="cascade")[""]}
    await Pairwise(store, tasks, out, clients).look()
    assert (scores(out)[-1].judge, scores(out)[-1].verdict) == ("cascade:small>large", "win")
    assert (len(small.asked), len(large.asked)) == (2, 2)
    small.answer = lambda body: says("C", top={"C": 0.95, "A": 0.05})
    again, other = mirrored(task, "old", "new")
    put(store, again, other)
    put(store, *scores(out))
    out = MemoryPublisher()
    await Pairwise(store, tasks, out, clients).look()
    assert (scores(out)[-1].judge, scores(out)[-1].verdict) == ("cascade:small>large", "tie")
    assert len(large.asked) == 2, "the small one was sure"
    for one in (small, large):
        one.close()


async def test_without_probabilities_replies_are_counted(store: Store, server: JudgeServer, task: str) -> None:
    """Three samples an order: their shares are the distribution; a second comparison asks for samples at once."""
    for _ in range(2):
        put(store, *mirrored(task, "old", "new"))

    def answer(body: dict[str, Any]) -> Any:
        first = json.loads(body["messages"][1]["content"].splitlines()[1])["answer_a"] == "new"
        letters = ["A", "A", "B"] if first else ["B", "B", "A"]
        return says(*letters[: body.get("n", 1)])

    server.answer = answer
    out = MemoryPublisher()
    judging = pairwise(store, task, out, server)
    assert await judging.look() == 2
    first, _, word = scores(out)[:3]
    assert (first.basis, word.verdict) == ("samples", "win")
    assert first.distribution == pytest.approx({"win": 2 / 3, "tie": 0, "loss": 1 / 3})
    assert word.distribution == pytest.approx({"win": 2 / 3, "tie": 0, "loss": 1 / 3})
    assert [body.get("n", 1) for body in server.asked].count(3) == 4
    digits = MemoryPublisher()
    put(store, *scores(out))
    put(store, *mirrored(task, "old", "new"))
    await pairwise(store, task, digits, server, policy(samples=1)).look()
    assert (scores(digits)[0].basis, scores(digits)[0].distribution) == ("digit", None)


async def test_what_a_judge_could_not_say_is_asked_again(store: Store, server: JudgeServer, task: str) -> None:
    """A judge that was away is asked again after an hour, not before; prose and a refusal are not asked again."""
    put(store, *mirrored(task, "old", "Good new"))
    good, clock = server.answer, [now()]

    async def look() -> list[Score]:
        out = MemoryPublisher()
        client = JudgeClient(server.url, "the-judge", retries=0)
        await Pairwise(store, {task: policy()[""]}, out, {"default": client}, now=lambda: clock[0]).look()
        put(store, *scores(out))
        return scores(out)

    server.answer = lambda body: (503, {"error": {"message": "overloaded"}})
    assert (await look())[-1].verdict == "abstain"
    server.answer = good
    assert await look() == [], "a restart half a minute later"
    clock[0] += timedelta(hours=2)
    assert (await look())[-1].verdict == "win"
    assert await look() == []
    (one,) = compare(store, task=task)
    assert (one.wins, one.abstained) == (1, 0), "the new word took the abstention's place"
    put(store, *mirrored(task, "old", "Good new"))
    server.answer = lambda body: says("I like both")
    assert (await look())[-1].verdict == "abstain"
    clock[0] += timedelta(hours=2)
    assert await look() == []
