"""Answers messages one after the other in a thread of its own, and hands the replies in."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import httpx
from flwr.app import Context, Message, RecordDict

from nomoat.aggregation.errors import NomoatError, Unreachable
from nomoat.client.connection.answering import Answering, Listener
from nomoat.client.connection.flower_client import (
    FlowerClient,
    IncomingMessage,
    Node,
    RunEnded,
    UnknownNode,
)
from nomoat.client.connection.threads import started
from nomoat.flower.replies import failure

log = logging.getLogger(__name__)

SEEN_KEPT = 1024
FETCH_S = 120.0

Result = TypeVar("Result")


class MessageWorker:
    """A queue of incoming messages and the thread that answers them."""

    def __init__(
        self,
        client: FlowerClient,
        answering: Answering,
        stop: threading.Event,
        listener: Listener,
    ) -> None:
        self._client = client
        self._answering = answering
        self._at_work = False
        self._stop = stop
        self._listener = listener
        self._jobs: queue.Queue[IncomingMessage] = queue.Queue()
        self._seen: dict[str, None] = {}
        self._contexts: dict[int, Context] = {}
        self._node = Node()
        started(self._work, "worker")

    def serve_as(self, node: Node) -> None:
        """The coordinator knows us as `node` from now on."""
        self._node = node

    def put(self, incoming: IncomingMessage) -> None:
        """Answer this message, unless it is being or was answered: it is offered again after a
        broken line.
        """
        if incoming.tree.object_id in self._seen:
            return
        self._seen[incoming.tree.object_id] = None
        if len(self._seen) > SEEN_KEPT:
            del self._seen[next(iter(self._seen))]
        if self._at_work:
            self._answering.overtaken()  # before the new message can be begun
        self._jobs.put(incoming)

    def _work(self) -> None:
        while True:
            incoming = self._jobs.get()
            kind = incoming.head.metadata.message_type
            self._at_work = True
            try:
                message = self._retrying(partial(self._fetch, incoming))
                if message is None:  # taken back: the round went on without us
                    self._listener.answered(kind, 0, True)
                    continue
                self._listener.working(kind)
                reply = self._answer(message)
                if self._stop.is_set():
                    continue
                self._answering.record(message, reply)
                sent = self._retrying(partial(self._send, reply), self._listener.unsent)
                size, wanted = sent if sent is not None else (0, False)
                self._listener.answered(kind, size, not wanted)
            except NomoatError as problem:
                self._withhold(incoming.head, problem)
            except Exception:  # a hostile or broken message must not end the line
                log.exception("message %s dropped", kind)
                self._listener.answered(kind, 0, True)
            finally:
                self._at_work = False

    def _withhold(self, message: Message, problem: NomoatError) -> None:
        """Answer that there is no answer, so that nobody waits for one.

        Flower's error reply holds the class of `problem` and nothing else, and is in no log: where
        the log cannot be written, it is all that leaves.
        """
        kind = message.metadata.message_type
        log.error("%s: nothing leaves: %s", kind, problem)
        self._listener.withheld(kind, str(problem))
        if not self._stop.is_set():
            try:
                self._retrying(partial(self._send, failure(message, problem)))
            except Exception:  # as below
                log.exception("%s: nobody could be told", kind)

    def _fetch(self, incoming: IncomingMessage) -> Message:
        return self._client.fetch(self._node, incoming, time.monotonic() + FETCH_S)

    def _send(self, reply: Message) -> tuple[int, bool]:
        return self._client.send(self._node, reply)

    def _answer(self, message: Message) -> Message:
        run_id = message.metadata.run_id
        if run_id not in self._contexts:
            self._contexts = {run_id: self._context(run_id)}  # earlier runs are over
        try:
            return self._answering.app(message, self._contexts[run_id])
        except Exception as problem:  # noqa: BLE001 - whatever it was, the coordinator is told
            log.warning("%s: %s", message.metadata.message_type, problem)
            return failure(message, problem)

    def _context(self, run_id: int) -> Context:
        return Context(
            run_id=run_id,
            node_id=self._node.node_id,
            node_config={},
            state=RecordDict(),
            run_config={},
        )

    def _retrying(
        self, work: Callable[[], Result], told: Callable[[str, float], None] = lambda *_: None
    ) -> Result | None:
        """`work`, again and again while the line is down; None if it has become pointless.

        told: with the reason and the seconds until the next try, at each that fails.
        """
        backoff = self._client.connection.backoff()
        while not self._stop.is_set():
            try:
                return work()
            except (Unreachable, UnknownNode) as problem:
                pause = next(backoff)
                told(str(problem), pause)
                self._stop.wait(pause)
            except (RunEnded, httpx.HTTPStatusError) as problem:
                log.info("the coordinator has moved on (%s)", problem)
                return None
        return None
