"""One process of several leads: the one that Kafka gave the only partition of a topic.

A group of consumers of which none reads: membership is the lease, the session time-out its length. It works on every
broker with consumer groups. A process that was paused and wakes up still believes that it leads; so whoever is about
to act asks the broker first, which refuses a commit of somebody who was expelled.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from ratchet.infra.kafka.config import consumer, group_id, log
from ratchet.schemas.errors import BrokerError, NotLeading
from ratchet.schemas.topics import Topic

SESSION_S = 6.0
"""Brokers allow no shorter one by default."""
POLL_S = 0.05
ANSWER_S = 2.0
CLOSE_S = 10.0
_EXPELLED = {
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._ASSIGNMENT_LOST,
    KafkaError._STATE,
}
_MEANWHILE = {KafkaError.REBALANCE_IN_PROGRESS, KafkaError._NO_OFFSET}


class Leadership:
    """Membership in the group that leads, in a thread of its own.

    ``leads`` says whether Kafka has given this process the lead, as far as it has heard; ``term`` counts how often.
    """

    def __init__(self, bootstrap: str, topic: Topic, group: str, session_s: float = SESSION_S) -> None:
        """Prepare; `start` joins.

        Args:
            bootstrap: ``host:port[,host:port…]``.
            topic: a topic with one partition, which is the lead.
            group: the consumer group's name in the table; in Kafka it is ``ratchet.<group>``.
            session_s: after so long without a sign of life another process leads.
        """
        self.term = 0
        self._topic, self._bootstrap = topic, bootstrap
        self._held = threading.Event()
        self._stop = threading.Event()
        self._asked: queue.SimpleQueue[Future[int]] = queue.SimpleQueue()
        self._committing: list[Future[int]] = []
        self._end = 0
        # incremental rebalancing: whoever leads goes on while others join and leave
        settings = consumer(bootstrap, group_id(group), f"ratchet-{group}") | {
            "session.timeout.ms": int(session_s * 1000),
            "heartbeat.interval.ms": int(session_s * 1000 / 6),
            "partition.assignment.strategy": "cooperative-sticky",
            "on_commit": self._committed,
        }
        self._consumer = Consumer(settings)
        self._thread = threading.Thread(target=self._run, name=f"kafka-leader-{group}", daemon=True)

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it has heard."""
        return self._held.is_set()

    def start(self) -> None:
        """Join the group; returns at once."""
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until this process leads; False after ``timeout_s`` seconds."""
        return self._held.wait(timeout_s)

    def confirm(self, timeout_s: float) -> int:
        """Ask the broker whether this process leads now.

        Returns:
            The end of the topic at that moment: whoever leads has read so far before it acts.

        Raises:
            NotLeading: another process leads, or will.
            BrokerError: Kafka is away or does not answer within ``timeout_s`` seconds.
        """
        if not self.leads:
            raise NotLeading(f"another process leads {self._topic.name}")
        answer: Future[int] = Future()
        self._asked.put(answer)
        try:
            return answer.result(timeout_s)
        except Late:
            raise BrokerError(f"Kafka at {self._bootstrap} did not say within {timeout_s:g} s who leads") from None

    def close(self) -> None:
        """Leave the group, so that the next one leads at once."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        else:
            self._consumer.close()

    def _run(self) -> None:
        # the client is used by this thread alone: another one's calls wait for its polls for seconds
        client = self._consumer
        client.subscribe([self._topic.name], on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)
        try:
            while not self._stop.is_set():
                client.poll(POLL_S)  # what it reads is of no interest
                self._ask()
        finally:
            self._held.clear()
            client.close()

    def _ask(self) -> None:
        if self._committing or self._asked.empty():
            return
        with contextlib.suppress(queue.Empty):
            while True:
                self._committing.append(self._asked.get_nowait())
        lead = TopicPartition(self._topic.name, 0)
        try:
            _, self._end = self._consumer.get_watermark_offsets(lead, timeout=ANSWER_S)
            lead.offset = self._end
            self._consumer.commit(offsets=[lead], asynchronous=True)
        except KafkaException as error:
            self._answer(error.args[0])

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._answer(error or next((one.error for one in partitions if one.error), None))

    def _answer(self, error: KafkaError | None) -> None:
        waiting, self._committing = self._committing, []
        for answer in waiting:
            if error is not None and error.code() in _MEANWHILE and self.leads:
                self._asked.put(answer)  # members come and go: asked again in a moment
            elif not self.leads or (error is not None and error.code() in _EXPELLED):
                answer.set_exception(NotLeading(f"another process leads {self._topic.name}"))
            elif error is not None:
                answer.set_exception(BrokerError(f"Kafka at {self._bootstrap}: {error.str()}"))
            else:
                answer.set_result(self._end)

    def _given(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        # nothing is read: the log is followed by everybody, see `Tail`
        client.incremental_assign([TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions])
        if partitions:
            self.term += 1
            self._held.set()
            log.info("%s: this process leads", self._topic.name)

    def _taken(self, client: Consumer, partitions: list[TopicPartition]) -> None:
        if partitions:
            self._held.clear()
            log.warning("%s: this process leads no more", self._topic.name)
        with contextlib.suppress(KafkaException):  # of what was lost already
            client.incremental_unassign(partitions)
