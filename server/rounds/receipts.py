"""The uploads of a round that arrived whole, for which receipts are issued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.messages import Report
from nomoat.aggregation.protocol.receipts import packet_digest
from nomoat.aggregation.secagg.messages import MaskedReport

UPLOADS = frozenset({wire.kind_of(Report), wire.kind_of(MaskedReport)})


@dataclass(frozen=True, slots=True)
class UpdateDigests:
    """One volunteer's part in one round: digests of its packets, tokens it was trained on."""

    packets: tuple[bytes, ...]
    tokens: int


@dataclass
class ReceivedUpdates:
    """Digests of the updates that arrived in a round, by volunteer."""

    _packets: dict[str, list[bytes]] = field(default_factory=dict)

    def note(self, volunteer: str, packet: wire.Packet) -> None:
        """Remember `packet` if it is an update."""
        try:
            kind = wire.peek_kind(packet, volunteer)
        except RemoteProtocolError:
            return
        if kind in UPLOADS:
            self._packets.setdefault(volunteer, []).append(packet_digest(packet))

    def earned(
        self, tokens: Mapping[str, int], contributors: tuple[str, ...]
    ) -> dict[str, UpdateDigests]:
        """The parts of those whose updates are in the sum."""
        return {
            name: UpdateDigests(tuple(self._packets[name]), tokens.get(name, 0))
            for name in contributors
            if name in self._packets
        }
