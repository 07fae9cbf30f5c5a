"""Flower's Grid over the state that volunteers' nodes talk to: no SuperLink, no other process.

Differs from Flower's on purpose: a volunteer that is only offline is waited for, not reported as
failed, until `patience_s` has passed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from flwr.app import Message

from nomoat.flower.objects import Objects, hashed_once, put_together, take_apart
from nomoat.flower.polling_grid import NodeInfo, PollingGrid, Run
from nomoat.flower.process import speak_as_coordinator
from nomoat.flower.replies import COORDINATOR_NODE, FAILED, UNREACHABLE, error_reply
from nomoat.server.fleet.flower_server import NodeStatus, begin_run, end_run
from nomoat.server.fleet.link_state import FleetState

log = logging.getLogger(__name__)

LOOK_AT_LEAST_EVERY_S = 1.0
BATCH_BYTES = 8 << 20
MEASURE = "evaluate."  # the category of messages that ask for a measurement


class FleetGrid(PollingGrid):
    """Flower's Grid on a FleetState. clock: time.time in production, like Flower's own."""

    def __init__(
        self, state: FleetState, patience_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._state = state
        self._patience_s = patience_s
        self._clock = clock
        self._run: Run | None = None
        self._looked_at = 0.0
        self._nodes: dict[str, int] = {}  # message id → node it went to
        self._urgent: set[str] = set()  # messages whose node is not waited for once it is offline

    def set_run(self, run: Run) -> None:
        """Work on this run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run in progress."""
        assert self._run is not None
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are online."""
        return self._state.get_nodes(self.run.run_id)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Flower's description of the nodes that are online."""
        return self._state.get_node_info(statuses=[NodeStatus.ONLINE])

    def online(self) -> dict[str, int]:
        """Volunteers who are online and may speak: name → node."""
        name_of = self._state.names_now()
        named = ((name_of(bytes(node.public_key)), node.node_id) for node in self.get_nodes())
        return {name: node for name, node in named if name is not None}

    def willing(self) -> dict[str, int]:
        """Volunteers who are online and whose owners let them train now: name → node."""
        paused = self._state.paused
        return {name: node for name, node in self.online().items() if node not in paused}

    def software(self) -> dict[str, str]:
        """The software of volunteers who are online and show it: name → text."""
        shown = self._state.software
        return {name: shown[node] for name, node in self.online().items() if shown.get(node)}

    def spoken(self) -> dict[str, str]:
        """Versions of the protocol that members speak, those turned away over it too, by name."""
        name_of, told = self._state.names_now(), list(self._state.spoken.items())
        named = ((name_of(key), spoken) for key, spoken in told)
        return {name: spoken for name, spoken in named if name is not None}

    def withdraw(self, message_ids: Iterable[str]) -> None:
        """Take back messages: a late answer to one of them is not wanted."""
        for message_id in message_ids:
            self._drop(message_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; returns a message id each, "" for one that could not be sent."""
        batch = list(messages)
        self._retire({(m.metadata.dst_node_id, m.metadata.group_id) for m in batch})
        ids = []
        missing: dict[str, Objects] = {}  # object id → a message that holds it
        session = self._state.start_session(self.run.run_id)
        with hashed_once():
            for message in batch:
                objects = take_apart(message)
                # All trees first: a push session ends as soon as nothing is pending in it.
                stored, wanted = self._state.store_message_and_object_tree(
                    objects.head, objects.tree, session
                )
                ids.append(objects.message_id if stored else "")
                if stored:
                    self._nodes[objects.message_id] = message.metadata.dst_node_id
                    if message.metadata.message_type.startswith(MEASURE):
                        self._urgent.add(objects.message_id)
                    missing.update(dict.fromkeys(wanted, objects))
            for object_id, objects in missing.items():
                content = objects.content(object_id)
                self._state.store_object(self.run.run_id, session, object_id, content)
        self._state.pulls.ring({message.metadata.dst_node_id for message in batch})
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Take replies that are here in full, about BATCH_BYTES of them at a time.

        Asking costs nothing while nothing has arrived: the database is looked at when a volunteer
        sent something, or every second for those who have gone.
        """
        now = self._clock()
        waited = abs(now - self._looked_at) >= LOOK_AT_LEAST_EVERY_S  # it may have been set back
        if not (self._state.arrived.is_set() or waited):
            return []
        self._state.arrived.clear()
        self._looked_at = now
        wanted = set(message_ids)
        taken, size = [], 0
        for reply_id, asked_id, sender in self._state.replies(self.run.run_id):
            if asked_id not in wanted:
                continue
            contents = self._state.contents(reply_id)
            if contents is None:
                continue  # still uploading: it must not hold up the others
            taken.append(self._inflate(reply_id, asked_id, sender, contents))
            self._drop(asked_id, reply_id)
            wanted.discard(asked_id)
            size += sum(map(len, contents.values()))
            if size > BATCH_BYTES:
                self._state.arrived.set()  # come back for the rest
                break
        return taken + (self._gone(wanted, now) if waited else [])

    def pause(self) -> None:
        """Wait until something has arrived, or a little."""
        self._state.arrived.wait(0.05)

    def _inflate(
        self, reply_id: str, asked_id: str, sender: int, contents: dict[str, bytes]
    ) -> Message:
        """The reply, or an error in its place if it is not what its head said it would be."""
        try:
            message = put_together(reply_id, contents)
            said = (message.metadata.reply_to_message_id, message.metadata.src_node_id)
            if said != (asked_id, sender):  # an object that claims to be another node's reply
                raise ValueError("it answers another message or in another's name")
        except Exception as problem:  # noqa: BLE001 - hostile bytes; flwr raises whatever it likes
            log.warning("node %d: malformed reply (%s)", sender, type(problem).__name__)
            return self._error(asked_id, FAILED)
        return message

    def _gone(self, wanted: set[str], now: float) -> list[Message]:
        """Errors in place of replies that will not come: sender away for longer than patience.

        Nobody is waited for only to measure: the others' measurements will do.
        """
        seen = self._state.last_seen()
        here = set(self.online().values())
        late = [
            message_id
            for message_id in wanted
            if (node := self._nodes.get(message_id)) not in here
            and now - seen.get(node or 0, 0.0)
            > (0.0 if message_id in self._urgent else self._patience_s)
        ]
        errors = [self._error(message_id, UNREACHABLE) for message_id in late]
        for message_id in late:
            self._drop(message_id)
        return errors

    def _error(self, asked_id: str, code: int) -> Message:
        return error_reply(asked_id, self._nodes.get(asked_id, COORDINATOR_NODE), code)

    def _drop(self, asked_id: str, reply_id: str | None = None) -> None:
        self._nodes.pop(asked_id, None)
        self._urgent.discard(asked_id)
        self._state.forget([asked_id])
        if reply_id is not None:
            self._state.object_store.delete(reply_id)

    def _retire(self, sending: set[tuple[int, str]]) -> None:
        """Take back what a node has not answered from another group: that round is over."""
        nodes = {node for node, _ in sending}
        stale = [
            message_id
            for message_id, node, group in self._state.unanswered(self.run.run_id)
            if node in nodes and (node, group) not in sending
        ]
        for message_id in stale:
            self._drop(message_id)


@contextmanager
def open_run(state: FleetState, grid: FleetGrid) -> Iterator[Run]:
    """A Flower run for this process, until the block ends.

    Flower stamps messages with one process-wide task, so a process has one run at a time.
    """
    run_id, task_id = begin_run(state)
    speak_as_coordinator(run_id, task_id)
    run = state.get_run_info(run_ids=[run_id])[0]
    grid.set_run(run)
    state.run_id = run_id
    try:
        yield run
    finally:
        state.run_id = 0
        end_run(state, task_id)
