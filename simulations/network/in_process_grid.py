"""A Flower Grid inside one process: the same ServerApp and ClientApp, no network, no Ray.

Every message is deflated into Flower's object bytes and inflated again in both directions, as the
fleet protocol would, so that what works here works on the wire.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeAlias

from flwr.app import Context, Message, RecordDict

from nomoat.client.round.sealed_app import App
from nomoat.flower.objects import identify, through_the_wire
from nomoat.flower.polling_grid import NodeInfo, PollingGrid, Run
from nomoat.flower.process import speak_as_coordinator
from nomoat.flower.replies import UNREACHABLE, error_reply, failure

# (volunteer, message type, group) → whether the message finds nobody at home
Absent: TypeAlias = Callable[[str, str, str], bool]

WAIT_S = 0.25  # longest pull without an answer


def everyone_answers(_volunteer: str, _message_type: str, _group: str) -> bool:
    """No volunteer is ever absent."""
    return False


class InProcessGrid(PollingGrid):
    """A grid whose nodes are the named volunteers, all served by one app.

    threads: how many volunteers are served at once. absent decides, message by message, who has
    vanished; their answer is an error, as if their connection were gone. unanswered: told when the
    number of messages changes that wait for their answers or are being served.
    """

    def __init__(
        self,
        app: App,
        volunteers: Sequence[str],
        threads: int,
        absent: Absent = everyone_answers,
        unanswered: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._run = Run.create_empty(secrets.randbits(62))
        speak_as_coordinator(self._run.run_id, task_id=1)
        self._app = app
        self._absent = absent
        self._tell = unanswered
        self._count, self._counting = 0, threading.Lock()
        self._names: dict[int, str] = {}
        self._contexts: dict[int, Context] = {}
        self._locks: dict[int, threading.Lock] = {}  # a volunteer does one thing at a time
        for index, name in enumerate(volunteers):
            self._join(index, name, len(volunteers))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="volunteer")
        self._answers: dict[str, Future[Message]] = {}

    def _join(self, index: int, name: str, total: int) -> None:
        node_id = index + 1
        self._names[node_id] = name
        self._locks[node_id] = threading.Lock()
        self._contexts[node_id] = Context(
            run_id=self._run.run_id,
            node_id=node_id,
            node_config={"partition-id": index, "num-partitions": total, "name": name},
            state=RecordDict(),
            run_config={},
        )

    def close(self) -> None:
        """Forget what is unanswered and stop serving."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def set_run(self, run: Run) -> None:
        """Flower's interface; the run is made here."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def get_nodes(self) -> Iterable[NodeInfo]:
        """All volunteers; in a simulation nobody's connection is lost between messages."""
        return [NodeInfo(node_id=node, owner_name=name) for node, name in self._names.items()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Start serving messages; an id for each."""
        ids, pushed = [], list(messages)
        self._unanswered(len(pushed))  # before any is served: nobody is told of a part of them
        for message in pushed:
            message_id = secrets.token_hex(16)
            identify(message, message_id)
            self._answers[message_id] = self._pool.submit(self._serve, message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Answers that are there; waits a little when none is."""
        wanted = {i: self._answers[i] for i in message_ids if i in self._answers}
        if not wanted:
            return []
        wait(wanted.values(), timeout=WAIT_S, return_when=FIRST_COMPLETED)
        done = [i for i, future in wanted.items() if future.done()]
        return [self._answers.pop(i).result() for i in done]

    def pause(self) -> None:
        """Return at once: a pull without an answer has waited already."""

    def _unanswered(self, more: int) -> None:
        with self._counting:
            self._count += more
            self._tell(self._count)

    def _serve(self, message: Message) -> Message:
        try:
            return self._answer(message)
        finally:
            self._unanswered(-1)

    def _answer(self, message: Message) -> Message:
        metadata = message.metadata
        node = metadata.dst_node_id
        if self._absent(self._names[node], metadata.message_type, metadata.group_id):
            return _numbered(error_reply(metadata.message_id, node, UNREACHABLE))
        arrived = through_the_wire(message, metadata.message_id)
        try:
            with self._locks[node]:
                reply = through_the_wire(self._app(arrived, self._contexts[node]), "")
        except Exception as problem:  # noqa: BLE001 - as Flower: an error reply, by its class name
            reply = through_the_wire(failure(arrived, problem), "")
        return _numbered(reply)


def _numbered(message: Message) -> Message:
    identify(message, secrets.token_hex(16))
    return message
