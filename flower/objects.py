"""Messages as Flower's content-addressed objects: taken apart to be sent, put together on arrival.

An object's id is the SHA-256 of its bytes, which begin with the name of its class. A message holds
a RecordDict, which holds ConfigRecords (packets.py); no other class is ever inflated, whatever a
peer names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message
from flwr.app.message import remove_content_from_message
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from nomoat.flower.record_bytes import check_record

HEAD_BYTES = 64
LINKS_BYTES = 64 << 10  # of what only refers to records: 260 of them, by name and digest
CLASSES = frozenset({"Message", "RecordDict", "ConfigRecord"})


@dataclass(frozen=True)
class Objects:
    """A message taken apart. head: it without its content; tree: the ids of all its objects."""

    head: Message
    tree: ObjectTree
    nested: Mapping[str, InflatableObject]

    @property
    def message_id(self) -> str:
        """The message's own id."""
        return str(self.head.metadata.message_id)

    def least_bytes(self, object_id: str) -> int:
        """The bytes that an object's values have; less than its own size."""
        found = self.nested[object_id]
        values = found.values() if isinstance(found, ConfigRecord) else ()
        return sum(len(value) for value in values if isinstance(value, bytes))

    def content(self, object_id: str) -> bytes:
        """The bytes of one object."""
        return self.nested[object_id].deflate()


@contextmanager
def hashed_once() -> Iterator[None]:
    """Compute each object's id once while the block runs; no message may change in it."""
    with no_object_id_recompute():
        yield


def take_apart(message: Message) -> Objects:
    """The objects of a message, which gets its id; many at a time within `hashed_once`."""
    identify(message, message.object_id)
    head, tree = remove_content_from_message(message), get_object_tree(message)
    return Objects(head, tree, get_all_nested_objects(message))


def ids_in(tree: ObjectTree) -> Iterator[str]:
    """The ids of all objects in a tree, repeated as often as they are referred to."""
    return (node.object_id for node in iterate_object_tree(tree))


def check_object(object_id: str, content: bytes) -> None:
    """Raise ValueError if `content` is not the object of that id, or of a class we do not use."""
    if get_object_id(content) != object_id:
        raise ValueError("an object is not the one it was announced as")
    _check_class(content)


def put_together(message_id: str, contents: Mapping[str, bytes]) -> Message:
    """A message from its objects; ValueError on any class but those that hold our parts.

    Flower raises whatever it likes about objects that do not fit together.
    """
    for content in contents.values():
        _check_class(content)
    message = inflate_object_from_contents(message_id, dict(contents))
    if not isinstance(message, Message):
        raise ValueError("not a message")
    identify(message, message_id)
    return message


def through_the_wire(message: Message, message_id: str) -> Message:
    """A copy of a message as it arrives elsewhere, where it is known by `message_id`.

    Of any class: nobody here is a stranger.
    """
    with hashed_once():
        nested = get_all_nested_objects(message)
        contents = {object_id: item.deflate() for object_id, item in nested.items()}
        arrived = inflate_object_from_contents(message.object_id, contents)
    assert isinstance(arrived, Message)
    identify(arrived, message_id)
    return arrived


def identify(message: Message, message_id: str) -> None:
    """Give a message its id: a private field, which Flower's own servers fill as they push."""
    message.metadata.__dict__["_message_id"] = message_id


def _check_class(content: bytes) -> None:
    kind = content[:HEAD_BYTES].partition(b" ")[0].decode("ascii", "replace")
    if kind not in CLASSES:
        raise ValueError(f"a {kind[:40]} has no place in a message")
    if kind == "ConfigRecord":
        _, _, body = content.partition(b"\0")
        check_record(body)
    elif len(content) > LINKS_BYTES:
        raise ValueError(f"a {kind} is larger than its parts can make it")
