"""Flower's Grid over the state that volunteers' nodes talk to: no SuperLink, no other process.

Everything here touches interfaces flwr does not promise to keep (docs/adr/0002-flower-embedded.md);
tests/end_to_end/line pins what is relied on. Three things differ from Flower on
purpose: a node that comes back under its own key takes over at once, and whatever it says it does
not have is offered to it again; a reply is taken although its sender has left; a volunteer that is
only offline is waited for, not reported as failed, until `patience_s` has passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, ErrorCode, Status, SubStatus
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import NodeInfo
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.serverapp import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.run import Run, RunStatus
from flwr.supercore.task_identity import TaskIdentity
from flwr.supercore.utils import int64_to_uint64, uint64_to_int64
from flwr.superlink.federation import NoOpFederationManager

from nomoat.server.spool import Spool
from nomoat.server.uploads import Uploads

log = logging.getLogger(__name__)
# Flower logs every request, and what a stranger got wrong as an error; we log what matters.
logging.getLogger("flwr").setLevel(logging.CRITICAL)

BEAT_S = 20.0
LOOK_AT_LEAST_EVERY_S = 1.0
BATCH_BYTES = 8 << 20
MEASURE = "evaluate."  # the category of messages that ask for a measurement
RECORDS = frozenset({"Message", "RecordDict", "ConfigRecord"})  # nothing else is ever inflated

NameOf = Callable[[bytes], str | None]


class Mail:
    """Wakes pulls that are held open until their node has a message; one pull a node."""

    def __init__(self, has_mail: Callable[[int], bool]) -> None:
        self._has_mail = has_mail
        self._lock = threading.Lock()
        self._waiting: dict[int, Waiter] = {}
        self._closed = False

    def ring(self, nodes: Iterable[int]) -> None:
        """There is something for these nodes; callable from any thread."""
        with self._lock:
            for waiter in [self._waiting[node] for node in nodes if node in self._waiting]:
                waiter.wake()

    def dismiss(self, node: int) -> None:
        """End the pull this node left open, with nothing."""
        with self._lock:
            waiter = self._waiting.pop(node, None)
            if waiter is not None:
                waiter.wake()

    def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self.ring(list(self._waiting))

    async def wait(self, node: int, seconds: float) -> bool:
        """Return when `node` has a message, or after `seconds`.

        False if a newer pull of the same node took this one's place: whoever made this one is gone,
        and a message given to it would be lost.
        """
        waiter = Waiter(asyncio.get_running_loop(), asyncio.Event())
        self.dismiss(node)
        with self._lock:
            self._waiting[node] = waiter
        try:
            # Looked at after registering: what comes in between rings.
            if not self._closed and not await asyncio.to_thread(self._has_mail, node):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(waiter.event.wait(), seconds)
        finally:
            with self._lock:
                newest = self._waiting.get(node) is waiter
                if newest:
                    del self._waiting[node]
        return newest


@dataclass(frozen=True, slots=True)
class Waiter:
    """A pull that is held open."""

    loop: asyncio.AbstractEventLoop
    event: asyncio.Event

    def wake(self) -> None:
        """Let it go on, from any thread."""
        self.loop.call_soon_threadsafe(self.event.set)


class FleetState(SqlLinkState):
    """Flower's link state in SQLite, with our rules about who is known.

    name_of: node key (PEM) → volunteer who may speak now, None otherwise; asked at every request,
    so that a ban counts from the next message on. `arrived` is set whenever a volunteer sent
    something.
    """

    def __init__(self, database: Path, name_of: NameOf) -> None:
        for suffix in ("", "-wal", "-shm"):  # a run does not survive its process: start clean
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        objects = Spool(database.with_name("objects"))
        super().__init__(str(database), NoOpFederationManager(), objects)
        self.initialize()
        self.folder = database.parent
        self.name_of = name_of
        self.arrived = threading.Event()
        self.mail = Mail(self.has_mail)
        self.run_id = 0  # the one that is open
        self._registering = threading.Lock()
        self._node_ids: dict[bytes, int] = {}  # by node key; a node's id never changes
        self._spool = objects
        self._uploads = Uploads()

    def state(self) -> FleetState:
        """Flower asks a factory for the state; this one is its own."""
        return self

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """The node of a volunteer who may speak; made at its first contact."""
        name = self.name_of(public_key)
        if name is None:
            return None
        with self._registering:
            known = self._node_ids.get(public_key)
            if known is None:
                known = super().get_node_id_by_public_key(public_key)
            if known is None:
                known = self.create_node(NOOP_FLWR_AID, name, public_key, 30.0)
            self._node_ids[public_key] = known
        return known

    def get_run_status(self, run_ids: set[int]) -> dict[int, RunStatus]:
        """The open run is running, as long as this process is; Flower asks at every request."""
        if run_ids == {self.run_id}:
            return {self.run_id: RunStatus(Status.RUNNING, "", "")}
        return super().get_run_status(run_ids)

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Flower's count of content bytes, which nobody reads: a write for every request."""

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Activate, taking over from an earlier process of the same key (its request is signed)."""
        self.mail.dismiss(node_id)
        if not super().activate_node(node_id, heartbeat_interval):
            self.deactivate_node(node_id)
            return super().activate_node(node_id, heartbeat_interval)
        return True

    def offer_again(self, node_id: int, have: frozenset[str]) -> None:
        """Offer what was handed to a node and it says it does not have: its line broke, or it died.

        Half an answer goes with the process that began it.
        """
        rows = self.query(
            "SELECT asked.message_id AS asked, reply.message_id AS reply "
            "FROM message_ins AS asked LEFT JOIN message_res AS reply "
            "ON reply.reply_to_message_id = asked.message_id "
            "WHERE asked.dst_node_id = :node AND asked.delivered_at != ''",
            {"node": uint64_to_int64(node_id)},
        )
        for asked, reply in ((row["asked"], row["reply"]) for row in rows):
            if asked in have or (reply and self._spool.whole(reply)):
                continue
            if reply:
                self.query("DELETE FROM message_res WHERE message_id = :reply", {"reply": reply})
                self.object_store.delete(reply)
            self.query(
                "UPDATE message_ins SET delivered_at = '' WHERE message_id = :asked",
                {"asked": asked},
            )

    def contents(self, reply_id: str) -> dict[str, bytes] | None:
        """Every object of a reply, None while one is missing."""
        if not self._spool.whole(reply_id):
            return None
        tree = self._spool.get_object_tree(reply_id)
        found = {
            node.object_id: self._spool.get(node.object_id) for node in iterate_object_tree(tree)
        }
        contents = {object_id: content for object_id, content in found.items() if content}
        return contents if len(contents) == len(found) else None

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply's head."""
        stored = super().store_message_res(message)
        self.arrived.set()
        return stored

    def start_session(self, run_id: int) -> str:
        """Begin an upload."""
        return self._uploads.begin(run_id)

    def preregister_object_tree(self, object_tree: ObjectTree, session_id: str) -> list[str]:
        """Announce a message's objects; those that are not here yet, which the upload owes."""
        run_id = self._uploads.run_of(session_id)
        missing = self._spool.preregister(run_id, object_tree)
        self._uploads.owe(session_id, missing)
        return missing

    def store_object(
        self, run_id: int, session_id: str, object_id: str, object_content: bytes
    ) -> bool:
        """Store one part of a reply, if its upload owes it."""
        if not self._uploads.owes(run_id, session_id, object_id):
            return False
        try:
            self._spool.put(object_id, object_content)
        except (NoObjectInStoreError, ValueError) as problem:
            log.warning("an object was refused: %s", problem)
            return False
        self._uploads.settle(session_id, object_id)
        self.arrived.set()
        return True

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        """An object, b"" if it is still on its way, None if nobody announced it."""
        return self._spool.get(object_id)

    def delete_sessions_in_run(self, run_id: int) -> None:
        """Forget the uploads of a run."""
        self._uploads.end_run(run_id)

    def replies(self, run_id: int) -> list[tuple[str, str, int]]:
        """(reply id, id of what it replies to, sender) of replies not taken yet."""
        rows = self.query(
            "SELECT message_id, reply_to_message_id, src_node_id FROM message_res "
            "WHERE run_id = :run AND delivered_at = '' ORDER BY created_at",
            {"run": uint64_to_int64(run_id)},
        )
        return [
            (row["message_id"], row["reply_to_message_id"], int64_to_uint64(row["src_node_id"]))
            for row in rows
        ]

    def unanswered(self, run_id: int) -> list[tuple[str, int, str]]:
        """(message id, node, group) of what was sent and has no reply."""
        rows = self.query(
            "SELECT message_id, dst_node_id, group_id FROM message_ins WHERE run_id = :run "
            "AND message_id NOT IN (SELECT reply_to_message_id FROM message_res)",
            {"run": uint64_to_int64(run_id)},
        )
        return [
            (row["message_id"], int64_to_uint64(row["dst_node_id"]), row["group_id"])
            for row in rows
        ]

    def has_mail(self, node_id: int) -> bool:
        """Whether something waits to be delivered to a node."""
        return bool(
            self.query(
                "SELECT 1 FROM message_ins WHERE dst_node_id = :node AND delivered_at = '' LIMIT 1",
                {"node": uint64_to_int64(node_id)},
            )
        )

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop messages, their replies and what either holds."""
        ids = set(message_ids)
        self.delete_messages(ids)
        for message_id in ids:
            self.object_store.delete(message_id)

    def last_seen(self) -> dict[int, float]:
        """Node → unix time until which it counts as online (past: since when it does not)."""
        rows = self.query("SELECT node_id, online_until FROM node")
        return {int64_to_uint64(row["node_id"]): row["online_until"] or 0.0 for row in rows}

    def close(self) -> None:
        """Let held requests go and close the database."""
        self.mail.close()
        if self._engine is not None:
            self._engine.dispose()


class FleetGrid(Grid):
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

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Flower's deprecated way to make a message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are online."""
        return self._state.get_nodes(self.run.run_id)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """What Flower knows of the nodes that are online."""
        return self._state.get_node_info(statuses=[NodeStatus.ONLINE])

    def online(self) -> dict[str, int]:
        """Volunteers who are online and may speak: name → node."""
        named = ((self._state.name_of(bytes(n.public_key)), n.node_id) for n in self.get_nodes())
        return {name: node for name, node in named if name is not None}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send; returns a message id each, "" for one that could not be sent."""
        batch = list(messages)
        self._retire({(m.metadata.dst_node_id, m.metadata.group_id) for m in batch})
        ids, contents = [], {}
        missing: dict[str, None] = {}
        session = self._state.start_session(self.run.run_id)
        with no_object_id_recompute():
            for message in batch:
                message.metadata.__dict__["_message_id"] = message.object_id
                # All trees first: a push session ends as soon as nothing is pending in it.
                stored, wanted = self._state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                ids.append(message.metadata.message_id if stored else "")
                if stored:
                    self._nodes[message.metadata.message_id] = message.metadata.dst_node_id
                    if message.metadata.message_type.startswith(MEASURE):
                        self._urgent.add(message.metadata.message_id)
                    contents.update(get_all_nested_objects(message))
                    missing.update(dict.fromkeys(wanted))
            for object_id in missing:
                content = contents[object_id].deflate()
                self._state.store_object(self.run.run_id, session, object_id, content)
        self._state.mail.ring({message.metadata.dst_node_id for message in batch})
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Take replies that are here in full, about BATCH_BYTES of them at a time.

        Asking costs nothing while nothing has arrived: the database is looked at when a volunteer
        sent something, or every second for those who have gone.
        """
        now = self._clock()
        waited = now - self._looked_at >= LOOK_AT_LEAST_EVERY_S
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

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send and wait for all replies, or for `timeout` seconds."""
        waiting = set(self.push_messages(messages)) - {""}
        started, received = time.monotonic(), []
        while waiting and (timeout is None or time.monotonic() - started < timeout):
            for reply in self.pull_messages(waiting):
                received.append(reply)
                waiting.discard(reply.metadata.reply_to_message_id)
            self._state.arrived.wait(0.05)
        return received

    def _inflate(
        self, reply_id: str, asked_id: str, sender: int, contents: dict[str, bytes]
    ) -> Message:
        """The reply, or an error in its place if it is not what its head said it would be."""
        try:
            message = inflate(reply_id, dict(contents))
            said = (message.metadata.reply_to_message_id, message.metadata.src_node_id)
            if said != (asked_id, sender):  # an object that claims to be another node's reply
                raise ValueError("it answers another message or in another's name")
        except Exception as problem:  # noqa: BLE001 - hostile bytes; flwr raises whatever it likes
            log.warning("node %d: malformed reply (%s)", sender, type(problem).__name__)
            return self._error(asked_id, ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
        message.metadata.__dict__["_message_id"] = reply_id
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
        errors = [self._error(message_id, ErrorCode.NODE_UNAVAILABLE) for message_id in late]
        for message_id in late:
            self._drop(message_id)
        return errors

    def _error(self, asked_id: str, code: int) -> Message:
        node = self._nodes.get(asked_id, SUPERLINK_NODE_ID)
        asked = Message(RecordDict(), node, "system", group_id="")
        asked.metadata.__dict__["_message_id"] = asked_id
        return Message(Error(code=code), reply_to=asked)

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


def inflate(message_id: str, contents: dict[str, bytes]) -> Message:
    """A Flower message from its objects; ValueError on any class but those that hold our parts."""
    for content in contents.values():
        kind = content.partition(b" ")[0].decode("ascii", "replace")
        if kind not in RECORDS:
            raise ValueError(f"a {kind[:40]} has no place in a message")
    message = inflate_object_from_contents(message_id, contents)
    if not isinstance(message, Message):
        raise ValueError("not a message")
    return message


@contextmanager
def open_run(state: FleetState, grid: FleetGrid) -> Iterator[Run]:
    """A Flower run for this process, kept alive until the block ends.

    Flower stamps messages with one process-wide task, so a process has one run at a time.
    """
    run_id = state.create_run(
        "nomoat/rounds", "1", "", {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
    )
    run = state.get_run_info(run_ids=[run_id])[0]
    task_id: Any = run.primary_task_id
    if not (state.claim_task(task_id) and state.activate_task(task_id)):
        raise RuntimeError("Flower did not start the run")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            state.acknowledge_task_heartbeat(task_id)

    thread = threading.Thread(target=beat, name="run heartbeat", daemon=True)
    thread.start()
    TaskIdentity.task_id, TaskIdentity.run_id = task_id, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    grid.set_run(run)
    state.run_id = run_id
    try:
        yield run
    finally:
        stop.set()
        thread.join()
        state.run_id = 0
        state.finish_task(task_id, SubStatus.COMPLETED, "")
