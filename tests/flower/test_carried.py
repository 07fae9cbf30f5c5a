"""Small objects travel with a call in a field that other releases skip."""

from __future__ import annotations

import pytest
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest
from hypothesis import given
from hypothesis import strategies as st

from nomoat.flower.carried import (
    FIELD,
    MOST_BYTES,
    MOST_OBJECTS,
    OBJECT_BYTES,
    carried,
    carry,
    small,
)

NAMES = st.text(st.characters(codec="ascii"), max_size=80)


@given(st.dictionaries(NAMES, st.binary(max_size=600), max_size=8))
def test_what_is_put_into_a_call_comes_out_of_its_bytes(contents: dict[str, bytes]) -> None:
    call = PullMessagesResponse()
    carry(call, contents)
    assert carried(PullMessagesResponse.FromString(call.SerializeToString())) == contents


def test_the_field_is_none_of_flowers() -> None:
    for call in (PullMessagesResponse, PushMessagesRequest):
        assert FIELD not in call.DESCRIPTOR.fields_by_number
    call = PushMessagesRequest()
    carry(call, {"a": b"x"})
    again = PushMessagesRequest.FromString(call.SerializeToString())
    assert not again.messages_list
    assert not again.HasField("node")


@given(st.binary(max_size=200))
def test_whatever_else_is_in_the_field_is_no_object_and_no_error(data: bytes) -> None:
    call = PushMessagesRequest()
    tag = bytes([(FIELD << 3 | 2) & 0x7F | 0x80, (FIELD << 3) >> 7 & 0x7F | 0x80, FIELD << 3 >> 14])
    size = bytes([len(data) & 0x7F | 0x80, len(data) >> 7])
    call.MergeFromString(tag + size + data)
    assert all(isinstance(content, bytes) for content in carried(call).values())


def test_only_so_much_travels_with_one_call() -> None:
    sizes = [0, OBJECT_BYTES + 1, OBJECT_BYTES, MOST_BYTES - OBJECT_BYTES, 1]
    contents = [(str(index), bytes(size)) for index, size in enumerate(sizes)]
    assert list(small(contents)) == ["2", "3"]
    assert len(small((str(index), b"x") for index in range(1000))) == MOST_OBJECTS


def test_a_flood_of_objects_is_read_no_further_than_may_travel() -> None:
    call = PushMessagesRequest()
    carry(call, {str(index): b"x" for index in range(3 * MOST_OBJECTS)})
    assert len(carried(call)) == MOST_OBJECTS


@pytest.mark.parametrize("number", [1, 127, 128, 300_000])
def test_lengths_of_every_size_are_written_as_protobuf_does(number: int) -> None:
    call = PushMessagesRequest()
    carry(call, {"a": bytes(number)})
    assert carried(call) == {"a": bytes(number)}
