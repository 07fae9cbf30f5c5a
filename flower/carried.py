"""Small objects that travel with the call that announces them (docs/protocol.md §2.6).

Flower sends a message's head and the tree of its objects, and then every object in a request of its
own: four round trips for a message of a hundred bytes. Here what is small comes with the tree, in a
field of the call that Flower's classes do not have. Protobuf keeps a field it does not know and
does nothing with it, so a side of an earlier release goes on asking for each object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from flwr.proto.message_pb2 import PushObjectRequest
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-untyped]

from nomoat.flower.record_bytes import varint

Call: TypeAlias = Message  # a request or an answer of Flower's fleet protocol

FIELD: Final = 15_087  # of no message of Flower's
_LENGTH_DELIMITED: Final = 2
OBJECT_BYTES: Final = 32 << 10
"""An object larger than this goes in a request of its own."""
MOST_BYTES: Final = 48 << 10
"""All that travels with one call: the port keeps a body below 64 KiB in memory."""
MOST_OBJECTS: Final = 64


def small(contents: Iterable[tuple[str, bytes]]) -> dict[str, bytes]:
    """Return those objects, in their order, that may travel with one call."""
    found: dict[str, bytes] = {}
    left = MOST_BYTES
    for object_id, content in contents:
        fits = len(content) <= min(OBJECT_BYTES, left)
        if content and fits and object_id not in found and len(found) < MOST_OBJECTS:
            found[object_id] = content
            left -= len(content)
    return found


def carry(call: Call, contents: Mapping[str, bytes]) -> None:
    """Put objects into a call: id → content."""
    for object_id, content in contents.items():
        one = PushObjectRequest(object_id=object_id, object_content=content).SerializeToString()
        tag = varint(FIELD << 3 | _LENGTH_DELIMITED)
        call.MergeFromString(tag + varint(len(one)) + one)


def carried(call: Call) -> dict[str, bytes]:
    """Return the objects in a call, unchecked: id → content, b"" where there is none.

    None of a side of an earlier release; what cannot be read is none.
    """
    found: dict[str, bytes] = {}
    for field in UnknownFieldSet(call):
        if field.field_number != FIELD or field.wire_type != _LENGTH_DELIMITED:
            continue
        try:
            one = PushObjectRequest.FromString(field.data)
        except DecodeError:
            continue
        found[one.object_id] = one.object_content
        if len(found) >= MOST_OBJECTS:
            break
    return found
