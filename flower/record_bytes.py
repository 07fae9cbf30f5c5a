"""The shape of a record's bytes, looked at before Flower makes Python objects of them.

A ConfigRecord of ours maps a few names to bytes. Eight megabytes of protobuf can as well hold four
million entries, which take seconds and hundreds of megabytes to read. Protocol Buffers' encoding:
https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

MAX_ENTRIES = 4
ITEM, KEY, VALUE, BYTES = 0x0A, 0x0A, 0x12, 0x32  # tags: field 1, 1, 2, 6; all with a length


def varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def check_record(body: bytes) -> None:
    """Raise ValueError unless a ConfigRecord's body maps at most MAX_ENTRIES names to bytes."""
    for count, (tag, start, end) in enumerate(_fields(body, 0, len(body))):
        if tag != ITEM or count >= MAX_ENTRIES:
            raise ValueError("a record that is no packet's")
        key, value = _two(body, start, end)
        if key[0] != KEY or value[0] != VALUE:
            raise ValueError("a record's entry without its name or value")
        inner = list(islice(_fields(body, value[1], value[2]), 2))
        if len(inner) != 1 or inner[0][0] != BYTES:
            raise ValueError("a record's value that is not bytes")


def _two(body: bytes, start: int, end: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    found = list(islice(_fields(body, start, end), 3))
    if len(found) != 2:
        raise ValueError("a record's entry without its name or value")
    return found[0], found[1]


def _fields(body: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, start, end) of each field, all of which have a length."""
    at = start
    while at < end:
        tag = body[at]
        length, at = _varint(body, at + 1, end)
        if tag & 7 != 2 or tag > 0x7F or at + length > end:
            raise ValueError("a record that is not encoded as ours are")
        yield tag, at, at + length
        at += length


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends; at most five bytes long."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= end:
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a length that does not end")
