"""A record is looked at before anything is made of it: a few names, bytes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from nomoat.flower.objects import check_object, take_apart
from nomoat.flower.packet_record import PacketRecord
from nomoat.flower.process import speak_as_coordinator
from nomoat.flower.record_bytes import check_record


def body_of(**values: object) -> bytes:
    return ConfigRecord(values).deflate().partition(b"\0")[2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "values",
    [{}, {"bytes": b""}, {"bytes": bytes(5 << 20)}, {"bytes": b"head", "seal": b"x" * 120}],
)
def test_a_packets_part_passes(values: dict[str, object]) -> None:
    check_record(body_of(**values))


SIZES = (0, 1, 100, 127, 128, 1 << 14, (1 << 14) - 9, 1 << 21, (1 << 21) + 1)


@pytest.mark.parametrize(
    "values", [{}, {"bytes": b"h", "seal": b"x" * 120}, *({"b": bytes(size)} for size in SIZES)]
)
def test_a_packets_record_has_the_bytes_and_the_id_of_flowers_own(values: Any) -> None:
    speak_as_coordinator(1, 1)
    ours, flowers = PacketRecord(values), ConfigRecord(values)
    assert ours.deflate() == flowers.deflate()
    assert ours.object_id == flowers.object_id
    message = Message(RecordDict({"head": ours, "part-0": ours}), 5, "train.local")
    objects = take_apart(message)
    assert objects.content(ours.object_id) == flowers.deflate()


BOMBS = {
    "four million empty entries": b"\x0a\x00" * (4 << 20),
    "five entries": body_of(**{f"name{i}": b"x" for i in range(5)}),
    "a number": body_of(bytes=7),
    "a text": body_of(bytes="text"),
    "a list": body_of(bytes=[b"a", b"b"]),
    "a list of a million": body_of(bytes=[0] * (1 << 20)),
    "an entry without a value": b"\x0a\x03\x0a\x01k",
    "two values in one": b"\x0a\x0b\x0a\x01k\x12\x06\x32\x01a\x32\x01b",
    "a field nobody knows": b"\x12\x00",
    "longer than it is": b"\x0a\x7f",
    "a length that does not end": b"\x0a" + b"\xff" * 12,
    "cut off": b"\x0a",
    "a varint field": b"\x08\x01",
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_everything_else_is_refused_unread(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"a record|a length"):
        check_record(body)


def test_an_object_that_only_refers_to_records_is_small() -> None:
    speak_as_coordinator(1, 1)
    records = {f"body{i:05d}": ConfigRecord({"bytes": b"%d" % i}) for i in range(300)}
    large = Message(RecordDict(records), dst_node_id=1, message_type="train.local")  # type: ignore[arg-type]
    objects = take_apart(large)
    for object_id in objects.nested:
        check_object(object_id, objects.content(object_id))
    many = RecordDict({"x" * 70_000: ConfigRecord({"bytes": b""})})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="larger than its parts"):
        check_object(many.object_id, many.deflate())
