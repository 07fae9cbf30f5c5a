"""A Grid that signs what it sends and hands on only replies their volunteer has signed.

It wraps any other Grid, so a simulation and a deployment check the same bytes; the round driver
never sees a seal. A reply whose seal does not hold becomes an error reply, logged with the
volunteer's name: the round goes on without it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import envelope
from nomoat.aggregation.protocol.enrolment import community_id
from nomoat.aggregation.protocol.envelope import Context, Direction
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.flower.polling_grid import NodeInfo, PollingGrid, Run
from nomoat.flower.replies import REFUSED, error_reply
from nomoat.flower.seals import put_seal, sealed_parts, take_seal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addressee:
    """A volunteer: its name and its Ed25519 public key."""

    name: str
    identity: bytes


@dataclass(frozen=True, slots=True)
class CommunitySigner:
    """Signs for the community: its key, its base model, a source of nonces (16 bytes) come from.

    founding: the key the community began with, if that is another one.
    """

    key: SigningKey
    base_hash: bytes
    nonce: Callable[[], bytes]
    founding: bytes | None = None

    def context(self, kind: str, volunteer: bytes) -> Context:
        """A new request's context."""
        community = community_id(self.founding or self.key.public)
        direction = Direction.TO_VOLUNTEER
        return Context(community, direction, volunteer, kind, self.nonce(), self.base_hash)


class SealedGrid(PollingGrid):
    """`inner`, with seals. who: node id → addressee, None for a node nobody may write to."""

    def __init__(
        self, inner: Grid, sender: CommunitySigner, who: Callable[[int], Addressee | None]
    ) -> None:
        self._inner = inner
        self._sender = sender
        self._who = who
        self._asked: dict[str, tuple[Addressee, Context]] = {}  # by message id

    def set_run(self, run: Run) -> None:
        """Work on this run."""
        self._inner.set_run(run)

    @property
    def run(self) -> Run:
        """The run in progress."""
        return self._inner.run

    def get_node_ids(self) -> Iterable[int]:
        """Nodes that are online."""
        return self._inner.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Flower's description of the nodes that are online."""
        return self._inner.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Seal and send; returns a message id each, "" for one that could not be sent."""
        batch = list(messages)
        sealed = [self._seal(message) for message in batch]
        known = [m for m, asked in zip(batch, sealed, strict=True) if asked is not None]
        sent = iter(self._inner.push_messages(known))
        ids = [next(sent) if asked is not None else "" for asked in sealed]
        self._asked |= {i: a for i, a in zip(ids, sealed, strict=True) if i and a is not None}
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies whose seal holds; an error reply in place of each other one."""
        return [self._open(reply) for reply in self._inner.pull_messages(message_ids)]

    def forget(self, message_ids: Iterable[str]) -> None:
        """Wait for no answer to these messages any more."""
        for message_id in message_ids:
            self._asked.pop(message_id, None)

    def _seal(self, message: Message) -> tuple[Addressee, Context] | None:
        addressee = self._who(message.metadata.dst_node_id)
        if addressee is None:
            return None
        context = self._sender.context(message.metadata.message_type, addressee.identity)
        put_seal(message, self._sender.key, context)
        return addressee, context

    def _open(self, reply: Message) -> Message:
        asked = self._asked.pop(reply.metadata.reply_to_message_id, None)
        if reply.has_error():
            return reply
        try:
            if asked is None:
                raise RemoteProtocolError("somebody", envelope.SECTION, "answers nothing we asked")
            addressee, request = asked
            check(reply, addressee, request)
        except RemoteProtocolError as problem:
            log.warning("refused: %s", problem)
            about = reply.metadata
            return error_reply(
                about.reply_to_message_id, about.src_node_id, REFUSED, problem.reason
            )
        take_seal(reply)
        return reply


def check(reply: Message, addressee: Addressee, request: Context) -> None:
    """Raise RemoteProtocolError unless `addressee` sealed `reply` as its answer to `request`."""
    context = Context(
        request.community,
        Direction.TO_COORDINATOR,
        addressee.identity,
        request.kind,
        request.nonce,
        request.base_hash,
    )
    envelope.open_sealed(sealed_parts(reply), addressee.identity, context, addressee.name)
