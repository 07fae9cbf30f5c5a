"""Protocol packets as Flower carries them: a ConfigRecord for each part, which is its `bytes`."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, RecordDict

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.flower.packet_record import PacketRecord

PART = "bytes"


def records_of(packet: wire.Packet) -> dict[str, ConfigRecord]:
    """A packet's parts as records; nothing writes into a record, so many messages may share it."""
    return {name: PacketRecord({PART: part}) for name, part in packet.parts().items()}


def packet_of(message: Message, sender: str) -> wire.Packet:
    """The packet in a message; RemoteProtocolError, naming `sender`, on any other content."""
    parts = {}
    for name, record in message.content.config_records.items():
        part = record.get(PART)
        if not isinstance(part, bytes):
            raise RemoteProtocolError(sender, wire.SECTION, "a record holds no bytes")
        parts[name] = part
    return wire.Packet.from_parts(parts, sender)


def to_message(kind: str, records: Mapping[str, ConfigRecord], node_id: int, group: str) -> Message:
    """A request to a node: `kind` (wire.peek_kind) gives its type, the round is its group."""
    return Message(RecordDict({**records}), node_id, wire.action_of(kind), group_id=group)


def to_reply(packet: wire.Packet, message: Message) -> Message:
    """A packet as the reply to `message`."""
    return Message(RecordDict({**records_of(packet)}), reply_to=message)
