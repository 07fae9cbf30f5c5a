"""Writes a line into the log of everything that left before an answer goes to the wire.

A message whose line cannot be written does not leave; the coordinator is told that there is none,
by an error reply without content (client/connection/message_worker.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flwr.app import Message

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.envelope import SEAL
from nomoat.aggregation.protocol.messages import Decline, Evaluation, Ready, Report
from nomoat.aggregation.protocol.receipts import packet_digest
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.aggregation.secagg.messages import (
    MaskedReport,
    SessionOffer,
    ShareSet,
    SurvivorSet,
    SurvivorSignature,
)
from nomoat.client.round.observer import RoundObserver
from nomoat.client.round.work import UpdateSummary
from nomoat.client.sent.log import SentMessage, tensors_of
from nomoat.client.sent.log_file import SentLog

HAND_OVER_S = 60.0  # how long after its last answer an update may still be asked for
OTHERS_TRAIN_S = 3900.0  # and after its training, while others still train
MAX_DIGITS = 9
READY = wire.kind_of(Ready)
MASKED, PLAIN = wire.kind_of(MaskedReport), wire.kind_of(Report)
OFFER = wire.action_of(wire.kind_of(SessionOffer))
SHARE_SET = wire.action_of(wire.kind_of(ShareSet))
SURVIVORS = wire.action_of(wire.kind_of(SurvivorSet))
SIGNED = wire.kind_of(SurvivorSignature)
LAST_OF_A_ROUND = frozenset({wire.kind_of(Evaluation), wire.kind_of(Decline), "error"})


@dataclass
class Recorder(RoundObserver):
    """Writes the log of one community. community: its name. to: the coordinator's address."""

    sent_log: SentLog
    community: str
    to: str
    clock: Callable[[], float] = time.time
    _upload: UpdateSummary | None = field(default=None, init=False)  # what the next report carries
    _clip: float | None = field(default=None, init=False)
    _round: int = field(default=0, init=False)  # of the session that was joined last
    _last: tuple[str, float] = field(default=("", 0.0), init=False)

    def __call__(self, request: Message, reply: Message) -> None:
        """Log `reply`, which is about to leave; NomoatError if it must not."""
        kind, size, digest = _contents(reply)
        number = _number(request.metadata.group_id)
        entry = SentMessage(self.clock(), self.community, self.to, kind, number, size, digest)
        if request.metadata.message_type == OFFER:
            offer = wire.decode(_head(request), SessionOffer, COORDINATOR)
            self._clip, self._round = max(offer.clips), offer.round
        if kind in {MASKED, PLAIN}:
            entry = self._update(entry, request)
        elif kind == SIGNED and request.metadata.message_type == SURVIVORS:
            # Whose updates are in the sum in the end: fewer than were masked together, perhaps.
            members = wire.decode(_head(request), SurvivorSet, COORDINATOR).members
            entry = replace(entry, session_size=_count(members), round=self._round)
        self.sent_log.record(entry)
        self._last = (kind, self.clock())

    def uploading(self, upload: UpdateSummary) -> None:
        """Note what the next report is made of."""
        self._upload = upload

    def handing_over(self) -> bool:
        """Return True if an update was announced and may still be asked for."""
        kind, at = self._last
        most_s = OTHERS_TRAIN_S if kind == READY else HAND_OVER_S
        return kind not in {"", *LAST_OF_A_ROUND} and 0 <= self.clock() - at < most_s

    def _update(self, entry: SentMessage, request: Message) -> SentMessage:
        """Add what the update is made of, and how it is hidden."""
        if (upload := self._upload) is not None:
            entry = replace(entry, tensors=tensors_of(upload.manifest), norm=upload.norm)
        if request.metadata.message_type != SHARE_SET:
            return entry
        members = wire.decode(_head(request), ShareSet, COORDINATOR).members
        size = _count(members)
        # Its round is that of the session that was joined, whatever the request is labelled.
        return replace(entry, masked=True, session_size=size, clip=self._clip, round=self._round)


def _count(members: bytes) -> int:
    """Return the number that a bitmap lists."""
    return sum(byte.bit_count() for byte in members)


def _number(group: str) -> int:
    """The round a request is labelled with, 0 if it is none."""
    return int(group) if group.isascii() and group.isdigit() and len(group) < MAX_DIGITS else 0


def _contents(reply: Message) -> tuple[str, int, str]:
    """(kind, payload bytes, packet digest in hex) of a reply; an error holds a class name only."""
    if reply.has_error():
        return "error", len(reply.error.reason or ""), ""
    parts = {name: record["bytes"] for name, record in reply.content.config_records.items()}
    size = sum(len(part) for part in parts.values() if isinstance(part, bytes))
    parts.pop(SEAL, None)
    packet = _head(reply)
    return wire.peek_kind(packet, "this volunteer"), size, packet_digest(packet).hex()


def _head(message: Message) -> wire.Packet:
    head = message.content.config_records["head"]["bytes"]
    assert isinstance(head, bytes)
    return wire.Packet(head)
