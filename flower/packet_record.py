"""A record of bytes alone that becomes an object's content in one copy.

Flower's own ConfigRecord passes through messages in messages of protobuf and a bytearray that
grows: for 4 MB some 20 ms of processor time, once for its id and once for its content. What is
written here is the same byte for byte, and record_bytes.py reads it.
"""

from __future__ import annotations

from collections.abc import Iterator

from flwr.app import ConfigRecord

from nomoat.flower.record_bytes import BYTES, ITEM, KEY, VALUE, varint

CLASS = "ConfigRecord"  # however it is called here


class PacketRecord(ConfigRecord):
    """A ConfigRecord whose values are bytes; nothing else may be put into it."""

    def deflate(self) -> bytes:
        """Return the content that Flower's own would."""
        parts = [part for name, value in self.items() for part in _item(name, value)]
        size = sum(map(len, parts))
        return b"".join((f"{CLASS}  {size}\0".encode(), *parts))


def _item(name: str, value: object) -> Iterator[bytes]:
    """One entry of a ProtoConfigRecord, in parts that are not copied."""
    assert isinstance(value, bytes)
    key, inner = name.encode(), bytes((BYTES,)) + varint(len(value))
    head = bytes((KEY,)) + varint(len(key)) + key
    head += bytes((VALUE,)) + varint(len(inner) + len(value)) + inner
    yield bytes((ITEM,)) + varint(len(head) + len(value)) + head
    yield value
