"""Seals on Flower messages: where in a message a seal is put, and taken off again.

A seal (aggregation/protocol/envelope.py) signs the head of a packet, whose digest binds the body.
It lies in the head's record, not in one of its own: every record is fetched by a request.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Message

from nomoat.aggregation.protocol import envelope, wire
from nomoat.aggregation.protocol.envelope import SEAL, Context
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.flower.packet_record import PacketRecord
from nomoat.flower.packets import PART

HEAD = "head"


def put_seal(message: Message, key: SigningKey, context: Context) -> None:
    """Sign a message's packet in `context`."""
    head = message.content.config_records[HEAD][PART]
    assert isinstance(head, bytes)  # we made it
    parts = envelope.seal(wire.Packet(head), key, context)
    message.content[HEAD] = PacketRecord({PART: head, SEAL: parts[SEAL]})


def sealed_parts(message: Message) -> dict[str, bytes]:
    """Head and seal of a message, as far as they are there and bytes."""
    record = message.content.config_records.get(HEAD, ConfigRecord())
    found = {HEAD: record.get(PART), SEAL: record.get(SEAL)}
    return {name: part for name, part in found.items() if isinstance(part, bytes)}


def take_seal(message: Message) -> None:
    """Take the seal off a message that has one: what is left is the packet alone."""
    del message.content.config_records[HEAD][SEAL]
