"""Frames between a port process and the round process: four bytes of length, then msgpack. Pure.

Both are processes of the coordinator's own and the socket between them has no name, so frames are
no defence; a broken one ends the link. Peers' bytes travel inside, unread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import msgpack

MOST_BYTES = 64 << 20
PIECE_BYTES = 1 << 20
_LENGTH = struct.Struct("<I")

Heads: TypeAlias = tuple[tuple[bytes, bytes], ...]


class BrokenLink(Exception):
    """There is no frame in the bytes that came over a link."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Porter: a request that has passed its limits. key: PEM of the node key that signed it, b"".

    up, down: bytes that this porter has carried since it said so last.
    """

    number: int
    method: str
    path: str
    query: bytes
    heads: Heads
    sender: str
    key: bytes
    body: bytes
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Listening:
    """Porter: it is there for volunteers."""


@dataclass(frozen=True, slots=True)
class Due:
    """Porter: the request of this number was held for as long as it may be."""

    number: int


@dataclass(frozen=True, slots=True)
class Answered:
    """Round process: the answer to a request, or its beginning. file: its body's path, "": none.

    more: BodyPiece frames follow.
    """

    number: int
    status: int
    heads: Heads
    body: bytes
    file: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class HeldOpen:
    """Round process: there is nothing yet to answer a request with; for `seconds` it may wait."""

    number: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BodyPiece:
    """Round process: the next part of an answer's body."""

    number: int
    body: bytes
    more: bool


@dataclass(frozen=True, slots=True)
class MemberChanges:
    """Round process: who may speak from now on, and who may not any more, by node key (PEM).

    came: (node key, name, identity) each.
    """

    came: tuple[tuple[bytes, str, bytes], ...]
    gone: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class NewCertificate:
    """Round process: the files of the certificate are new ones."""


Frame: TypeAlias = (
    Listening | Asked | Due | Answered | HeldOpen | BodyPiece | MemberChanges | NewCertificate
)
KINDS: tuple[type[Frame], ...] = (
    Listening,
    Asked,
    Due,
    Answered,
    HeldOpen,
    BodyPiece,
    MemberChanges,
    NewCertificate,
)
_BY_NUMBER = dict(enumerate(KINDS))


def encode(frame: Frame) -> bytes:
    """A frame's bytes."""
    packed: bytes = msgpack.packb((KINDS.index(type(frame)), *_fields(frame)))
    return _LENGTH.pack(len(packed)) + packed


def _fields(frame: Frame) -> tuple[object, ...]:
    return tuple(getattr(frame, name) for name in frame.__slots__)


class Frames:
    """Puts frames together from bytes as they arrive."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole with `data`; BrokenLink at bytes that are none."""
        left = self._left
        left += data
        at = 0
        try:
            while len(left) - at >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(left, at)
                if size > MOST_BYTES:
                    raise BrokenLink(f"a frame of {size} bytes")
                if len(left) - at - _LENGTH.size < size:
                    break
                at += _LENGTH.size
                yield _decoded(bytes(memoryview(left)[at : at + size]))
                at += size
        finally:
            del left[:at]


def _decoded(packed: bytes) -> Frame:
    try:
        kind, *fields = msgpack.unpackb(packed, use_list=False)
        return _BY_NUMBER[kind](*fields)
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as problem:
        raise BrokenLink(f"no frame ({type(problem).__name__})") from None
