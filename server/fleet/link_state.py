"""The state volunteers' nodes talk to: Flower's link state in memory, contents in files beside it.

It ends with its process, as its run does, so a database of it would promise nothing. Differs from
Flower's on purpose: a node that comes back under its own key takes over at once, and whatever it
says it does not have is offered to it again; a reply is taken although its sender has left; and
nothing looks through the messages of others to find a node's own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message

from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.wire import MAX_BODY_BYTES, MAX_HEAD_BYTES
from nomoat.flower.process import silence
from nomoat.server.fleet.flower_server import (
    BEAT_S,
    OWNER,
    RUNNING,
    InMemoryLinkState,
    NoObjectInStoreError,
    NoOpFederationManager,
    ObjectTree,
    RunStatuses,
    delivered_now,
    here_no_longer_than_said,
)
from nomoat.server.fleet.held_pulls import HeldPulls
from nomoat.server.fleet.object_files import ObjectFiles
from nomoat.server.fleet.pending_uploads import PendingUploads

log = logging.getLogger(__name__)

SOFTWARE_SHOWN = 80  # characters
REPLY_ROOM_BYTES = 16 << 20  # of a reply, for heads, shares, signatures beside its vector
MOST_REPLY_BYTES = MAX_HEAD_BYTES + MAX_BODY_BYTES  # of an adapter that is not known
NameOf = Callable[[bytes], str | None]


class FleetState(InMemoryLinkState):
    """Flower's link state in memory, with our rules about who is known.

    folder: for the contents of large objects; what is in there is deleted first. name_of: node key
    (PEM) → volunteer who may speak now, None otherwise; asked at every request, so that a ban
    counts from the next message on. now: the same at one moment, for many. `arrived` is set
    whenever a volunteer sent something.
    """

    def __init__(
        self, folder: Path, name_of: NameOf, now: Callable[[], NameOf] | None = None
    ) -> None:
        for database in folder.glob("link.db*"):  # of a release that kept one
            database.unlink()
        objects = ObjectFiles(folder / "objects")
        silence()
        super().__init__(NoOpFederationManager(), objects)
        self.folder = folder
        self.name_of = name_of
        self.names_now = now or (lambda: name_of)
        self.arrived = threading.Event()
        self.pulls = HeldPulls(self.has_news)
        self.run_id = 0  # the one that is open
        self.most_reply_bytes = MOST_REPLY_BYTES
        self.paused: frozenset[int] = frozenset()  # nodes that said so in their last request
        self.software: dict[int, str] = {}  # of nodes whose owners show it
        self.spoken: dict[bytes, str] = {}  # node key → versions of the protocol it speaks
        self._said: dict[int, str] = {}
        self._registering = threading.Lock()
        self._node_keys: dict[int, bytes] = {}  # by node id; neither changes
        self._asked: dict[int, dict[str, None]] = {}  # node → ids of messages for it, oldest first
        self._objects = objects
        self._uploads = PendingUploads()

    def expect(self, values: int) -> None:
        """Bound a reply by the largest vector: 8 bytes a value at most, and what is beside it."""
        self.most_reply_bytes = 8 * values + REPLY_ROOM_BYTES

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """The node of a volunteer who may speak; made at its first contact."""
        name = self.name_of(public_key)
        if name is None:
            return None
        with self._registering:
            known = super().get_node_id_by_public_key(public_key)
            if known is None:
                known = self.create_node(OWNER, name, public_key, 30.0)
                self._node_keys[known] = public_key
        return known

    def get_run_status(self, run_ids: set[int]) -> RunStatuses:
        """The open run is running, as long as this process is; Flower asks at every request."""
        if run_ids == {self.run_id}:
            return {self.run_id: RUNNING}
        return super().get_run_status(run_ids)

    def _cleanup_expired_task_tokens_locked(self) -> None:
        """Keep the run's task however long nothing was heard of it.

        It ends with this process. Flower ends it after a minute without a heartbeat, and for good:
        a laptop that slept, or a clock that was corrected, would leave a run in which nothing can
        be sent.
        """

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """Flower's count of content bytes, which nobody reads."""

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """Activate, taking over from an earlier process of the same key (its request is signed)."""
        self.pulls.dismiss(node_id)
        if not super().activate_node(node_id, heartbeat_interval):
            self.deactivate_node(node_id)
            return super().activate_node(node_id, heartbeat_interval)
        return True

    def keep_online(self, node_id: int) -> None:
        """Take a pull for a heartbeat."""
        self.acknowledge_node_heartbeat(node_id, BEAT_S)

    def _check_and_tag_offline_nodes(self, node_ids: list[int] | None = None) -> None:
        with self.lock:
            here_no_longer_than_said(self.nodes.values(), time.time())
            super()._check_and_tag_offline_nodes(node_ids)

    def note_paused(self, node_id: int, paused: bool) -> None:
        """Note if a node's owner lets nothing be trained now."""
        if paused != (node_id in self.paused):
            with self._registering:
                self.paused = self.paused - {node_id} if not paused else self.paused | {node_id}

    def note_software(self, node_id: int, said: str) -> None:
        """Note what a node says it runs: a peer's text, one short line of it."""
        if said != self._said.get(node_id, ""):
            self._said[node_id] = said
            self.software[node_id] = one_line(said)[:SOFTWARE_SHOWN]

    def note_spoken(self, key: bytes, spoken: str) -> None:
        """Note which versions of the protocol the member with this node key speaks."""
        self.spoken[key] = spoken

    def offer_again(self, node_id: int, have: frozenset[str]) -> None:
        """Offer what was handed to a node and it says it does not have: its line broke, or it died.

        Half an answer goes with the process that began it.
        """
        with self.lock:
            for asked in self._asked.get(node_id, ()):
                metadata = self.message_ins_store[asked].metadata
                reply = self.message_ins_id_to_message_res_id.get(asked)
                whole = reply is not None and self._objects.whole(reply)
                if metadata.delivered_at == "" or asked in have or whole:
                    continue
                if reply is not None:
                    self.message_res_store.pop(reply, None)
                    del self.message_ins_id_to_message_res_id[asked]
                    self.object_store.delete(reply)
                metadata.delivered_at = ""

    def contents(self, reply_id: str) -> dict[str, bytes] | None:
        """Every object of a reply, None while one is missing."""
        ids = self._objects.ids_within(reply_id)
        if ids is None:
            return None
        found = {object_id: self._objects.get(object_id) for object_id in ids}
        contents = {object_id: content for object_id, content in found.items() if content}
        return contents if len(contents) == len(found) else None

    def is_addressed_to(self, node_id: int, message_id: str) -> bool:
        """True if a message was sent to this node."""
        return message_id in self._asked.get(node_id, ())

    def store_message_ins(self, message: Message) -> str | None:
        """Store a request's head."""
        with self.lock:
            stored = super().store_message_ins(message)
            if stored is not None:
                self._asked.setdefault(message.metadata.dst_node_id, {})[stored] = None
            return stored

    def get_message_ins(
        self, node_id: int, limit: int | None, *, run_id: int | None = None
    ) -> list[Message]:
        """Take the oldest messages for a node that it was not given yet."""
        with self.lock:
            self._check_stored_messages(set(self._asked.get(node_id, ())))  # what expired goes
            waiting = self._undelivered(node_id)
            new = [one for one in waiting if run_id in (None, one.metadata.run_id)][:limit]
            for message in new:
                message.metadata.delivered_at = delivered_now()
            return new

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """Drop messages and the replies to them."""
        with self.lock:
            for message_id in message_ins_ids & self.message_ins_store.keys():
                node = self.message_ins_store[message_id].metadata.dst_node_id
                self._asked[node].pop(message_id, None)
            super().delete_messages(message_ins_ids)

    def store_message_res(self, message: Message) -> str | None:
        """Store a reply's head."""
        stored = super().store_message_res(message)
        self.arrived.set()
        return stored

    def store_message_and_object_tree(
        self, message: Message, object_tree: ObjectTree, session_id: str
    ) -> tuple[bool, list[str]]:
        """Store a message's head and announce its objects: (stored, ids of those to come)."""
        if message.metadata.reply_to_message_id:
            self._uploads.is_for(session_id, object_tree.object_id)
        return super().store_message_and_object_tree(message, object_tree, session_id)

    def start_session(self, run_id: int) -> str:
        """Begin an upload."""
        return self._uploads.begin(run_id)

    def preregister_object_tree(self, object_tree: ObjectTree, session_id: str) -> list[str]:
        """Announce a message's objects; those that are not here yet, which the upload owes."""
        run_id = self._uploads.run_of(session_id)
        try:
            missing = self._objects.preregister(run_id, object_tree)
        except ValueError as problem:
            log.warning("a reply was refused: %s", problem)
            missing = []
        self._uploads.owe(session_id, missing)
        return missing

    def store_object(
        self, run_id: int, session_id: str, object_id: str, object_content: bytes
    ) -> bool:
        """Store one part of a message, if its upload owes it and a reply does not become too large.

        A reply is measured by what is here of it: sent again, it has no more room.
        """
        if not self._uploads.owes(run_id, session_id, object_id):
            return False
        reply = self._uploads.reply_of(session_id)
        size = len(object_content) + (self._objects.bytes_within(reply) if reply else 0)
        if reply and size > self.most_reply_bytes:
            log.warning("a reply was refused: more than %d bytes", self.most_reply_bytes)
            return False
        try:
            self._objects.put(object_id, object_content)
        except (NoObjectInStoreError, ValueError) as problem:
            log.warning("an object was refused: %s", problem)
            return False
        self._uploads.settle(session_id, object_id)
        self.arrived.set()
        return True

    def get_object(self, run_id: int, object_id: str) -> bytes | None:
        """An object, b"" if it is still on its way, None if nobody announced it."""
        return self._objects.get(object_id)

    def in_memory(self, object_id: str) -> bytes:
        """An object that is small and here, else b""."""
        return self._objects.in_memory(object_id)

    def delete_sessions_in_run(self, run_id: int) -> None:
        """Forget the uploads of a run."""
        self._uploads.end_run(run_id)

    def replies(self, run_id: int) -> list[tuple[str, str, int]]:
        """(reply id, id of what it replies to, sender) of replies not taken yet."""
        with self.lock:
            about = [reply.metadata for reply in self.message_res_store.values()]
        new = [one for one in about if one.run_id == run_id and one.delivered_at == ""]
        return [(one.message_id, one.reply_to_message_id, one.src_node_id) for one in new]

    def unanswered(self, run_id: int) -> list[tuple[str, int, str]]:
        """(message id, node, group) of what was sent and has no reply."""
        with self.lock:
            return [
                (message_id, message.metadata.dst_node_id, message.metadata.group_id)
                for message_id, message in self.message_ins_store.items()
                if message_id not in self.message_ins_id_to_message_res_id
                and message.metadata.run_id == run_id
            ]

    def has_news(self, node_id: int) -> bool:
        """True if there is something to tell a node: a message, or that it may not speak now."""
        key = self._node_keys.get(node_id)
        gone = key is not None and self.name_of(key) is None
        return gone or self.has_mail(node_id)

    def has_mail(self, node_id: int) -> bool:
        """True if something waits to be delivered to a node."""
        with self.lock:
            return bool(self._undelivered(node_id))

    def _undelivered(self, node_id: int) -> list[Message]:
        asked = [self.message_ins_store[one] for one in self._asked.get(node_id, ())]
        return [message for message in asked if message.metadata.delivered_at == ""]

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drop messages, their replies and what either holds."""
        ids = set(message_ids)
        with self.lock:
            replies = [self.message_ins_id_to_message_res_id.get(asked) for asked in ids]
            self.delete_messages(ids)
        for message_id in (*ids, *filter(None, replies)):
            self.object_store.delete(message_id)

    def last_seen(self) -> dict[int, float]:
        """Node → unix time until which it counts as online (past: since when it does not)."""
        with self.lock:
            return {node_id: node.online_until for node_id, node in self.nodes.items()}

    def close(self) -> None:
        """Let held requests go."""
        self.pulls.close()
