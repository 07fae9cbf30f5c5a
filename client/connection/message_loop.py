"""The volunteer's line to its coordinator: Flower's fleet protocol with an installed ClientApp.

Never asks for a FAB: the only code that runs is what is installed. Polling, heartbeats and work
each have their thread, so a training of hours keeps the line alive; whatever breaks the line is
waited out with growing pauses, and a coordinator that was restarted is found again. What goes over
the line is wires.py's.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

import httpx
from flwr.app import Context, Message, RecordDict

from nomoat.aggregation.errors import NomoatError, Unreachable
from nomoat.client.connection.flower_client import (
    BEAT_S,
    SIGN_OFF_S,
    TIMEOUT_S,
    ConnectionSettings,
    FlowerClient,
    IncomingMessage,
    Node,
    RunEnded,
    UnknownNode,
)
from nomoat.client.round.sealed_app import App
from nomoat.flower.replies import failure

log = logging.getLogger(__name__)

SEEN_KEPT = 1024
FETCH_S = 120.0

Result = TypeVar("Result")


class Listener(Protocol):
    """Whoever wants to know how the line is doing (a status file, a terminal)."""

    def connected(self, node_id: int) -> None:
        """The coordinator knows us as this node."""

    def lost(self, reason: str, retry_s: float) -> None:
        """The line broke; it is tried again after `retry_s`."""

    def working(self, kind: str) -> None:
        """A message of this kind is being answered."""

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """It was answered; `late` if the coordinator had moved on."""

    def overtaken(self) -> None:
        """Something new is asked while something else is being done, whose answer is too late."""

    def withheld(self, kind: str, reason: str) -> None:
        """An answer was not sent: it could not be logged."""


Record: TypeAlias = Callable[[Message, Message], None]


def unrecorded(_request: Message, _reply: Message) -> None:
    """Keep no log of what leaves."""


def serve(
    connection: ConnectionSettings,
    app: App,
    stop: threading.Event,
    listener: Listener,
    record: Record = unrecorded,
) -> None:
    """Answer whatever the coordinator sends with `app`, until `stop` is set.

    record: called with request and reply before the reply leaves; what it raises NomoatError for
    does not leave. Raises Refused if the coordinator does not admit this node key; a coordinator
    that does not answer is waited for, however long.
    """
    backoff = Backoff(connection)
    with FlowerClient(connection) as client:
        worker = MessageWorker(client, app, stop, listener, record)
        while not stop.is_set():
            try:
                node = client.activate()
            except (Unreachable, UnknownNode) as problem:
                pause = next(backoff)
                listener.lost(str(problem), pause)
                stop.wait(pause)
                continue
            backoff = Backoff(connection)
            worker.serve_as(node)
            listener.connected(node.node_id)
            over = threading.Event()
            beat = _thread(partial(_beat, client, node, over), "heartbeat")
            try:
                _poll(client, node, worker, stop, listener)
            finally:
                over.set()
                if stop.is_set():
                    client.deactivate(node)
                beat.join(SIGN_OFF_S if stop.is_set() else TIMEOUT_S)


def _poll(
    client: FlowerClient,
    node: Node,
    worker: MessageWorker,
    stop: threading.Event,
    listener: Listener,
) -> None:
    """Hand messages to `labour` until `stop` is set or the node must be activated again.

    A poll may be held open by the coordinator, so it runs beside the wait for `stop`.
    """
    ended = threading.Event()

    def poll() -> None:
        backoff = Backoff(client.connection)
        while not (stop.is_set() or ended.is_set()):
            asked_at = time.monotonic()
            try:
                incoming = client.receive(node)
            except UnknownNode as problem:
                listener.lost(str(problem), 0.0)
                break
            except (Unreachable, RunEnded, httpx.HTTPStatusError) as problem:
                pause = next(backoff)
                listener.lost(str(problem), pause)
                ended.wait(pause)
                continue
            if backoff.used:
                backoff = Backoff(client.connection)
                listener.connected(node.node_id)
            if incoming is not None:
                worker.put(incoming)
            elif time.monotonic() - asked_at < 1.0:  # it was not held open
                ended.wait(client.connection.chance.uniform(*client.connection.poll_s))
        ended.set()

    _thread(poll, "poll")
    while not (ended.wait(0.1) or stop.is_set()):
        pass
    ended.set()


def _beat(client: FlowerClient, node: Node, over: threading.Event) -> None:
    """Heartbeats until `over`; failures are the poll's to notice."""
    while not over.wait(client.connection.chance.uniform(0.8, 1.0) * BEAT_S):
        try:
            client.beat(node)
        except (Unreachable, UnknownNode, RunEnded, httpx.HTTPStatusError) as problem:
            log.debug("heartbeat: %s", problem)


class MessageWorker:
    """Answers messages one after the other in a thread of its own, and hands the replies in."""

    def __init__(
        self,
        client: FlowerClient,
        app: App,
        stop: threading.Event,
        listener: Listener,
        record: Record = unrecorded,
    ) -> None:
        self._wires = client
        self._record = record
        self._at_work = False
        self._app = app
        self._stop = stop
        self._listener = listener
        self._jobs: queue.Queue[IncomingMessage] = queue.Queue()
        self._seen: dict[str, None] = {}
        self._contexts: dict[int, Context] = {}
        self._node = Node()
        _thread(self._work, "labour")

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
            self._listener.overtaken()  # before the new message can be begun
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
                self._record(message, reply)
                sent = self._retrying(partial(self._send, reply))
                size, wanted = sent if sent is not None else (0, False)
                self._listener.answered(kind, size, not wanted)
            except NomoatError as problem:
                log.error("%s: nothing leaves: %s", kind, problem)
                self._listener.withheld(kind, str(problem))
            except Exception:  # a hostile or broken message must not end the line
                log.exception("message %s dropped", kind)
                self._listener.answered(kind, 0, True)
            finally:
                self._at_work = False

    def _fetch(self, incoming: IncomingMessage) -> Message:
        return self._wires.fetch(self._node, incoming, time.monotonic() + FETCH_S)

    def _send(self, reply: Message) -> tuple[int, bool]:
        return self._wires.send(self._node, reply)

    def _answer(self, message: Message) -> Message:
        run_id = message.metadata.run_id
        if run_id not in self._contexts:
            self._contexts = {run_id: self._context(run_id)}  # earlier runs are over
        try:
            return self._app(message, self._contexts[run_id])
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

    def _retrying(self, work: Callable[[], Result]) -> Result | None:
        """`work`, again and again while the line is down; None if it has become pointless."""
        backoff = Backoff(self._wires.connection)
        while not self._stop.is_set():
            try:
                return work()
            except (Unreachable, UnknownNode) as problem:
                log.debug("%s", problem)
                self._stop.wait(next(backoff))
            except (RunEnded, httpx.HTTPStatusError) as problem:
                log.info("the coordinator has moved on (%s)", problem)
                return None
        return None


class Backoff:
    """Growing pauses: doubled each time, jittered, up to the line's longest."""

    def __init__(self, connection: ConnectionSettings) -> None:
        self._line = connection
        self._next_s = connection.pause_s[0]
        self.used = False

    def __iter__(self) -> Iterator[float]:
        return self

    def __next__(self) -> float:
        pause = self._next_s * self._line.chance.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, self._line.pause_s[1])
        self.used = True
        return pause


def beneath(work: Callable[[], None], name: str) -> threading.Thread:
    """A thread that ends with the process, its name below the present one's: "town/poll"."""
    whole = f"{threading.current_thread().name}/{name}"
    return threading.Thread(target=work, name=whole, daemon=True)


def _thread(work: Callable[[], None], name: str) -> threading.Thread:
    thread = beneath(work, name)
    thread.start()
    return thread
