"""A seal holds for one sender, recipient, request, kind and base model, and for its bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nomoat.aggregation.errors import LocalProtocolError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.envelope import (
    SEAL,
    Context,
    Direction,
    nonce_of,
    open_sealed,
    seal,
)
from nomoat.aggregation.protocol.messages import Report
from nomoat.aggregation.protocol.signing import SigningKey

KEY = SigningKey(b"\1" * 32)
OTHER = SigningKey(b"\2" * 32)
CONTEXT = Context(
    b"c" * 32, Direction.TO_COORDINATOR, KEY.public, "query.report", b"n" * 16, b"b" * 32
)
PACKET = wire.encode(Report(3, 1, 0.5, b"\0\0\x80\x3f" * 5))


def test_what_was_sealed_opens_unchanged() -> None:
    parts = seal(PACKET, KEY, CONTEXT)
    assert open_sealed(parts, KEY.public, CONTEXT, "ada") == PACKET
    assert nonce_of(parts, "ada") == CONTEXT.nonce


def test_the_same_message_always_gets_the_same_seal() -> None:
    assert seal(PACKET, KEY, CONTEXT) == seal(PACKET, KEY, CONTEXT)


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONTEXT, community=b"x" * 32),
        replace(CONTEXT, direction=Direction.TO_VOLUNTEER),
        replace(CONTEXT, volunteer=OTHER.public),
        replace(CONTEXT, kind="train.local"),
        replace(CONTEXT, nonce=b"m" * 16),
        replace(CONTEXT, base_hash=b"x" * 32),
    ],
    ids=["community", "direction", "volunteer", "kind", "nonce", "base"],
)
def test_a_seal_is_worth_nothing_in_another_context(changed: Context) -> None:
    with pytest.raises(RemoteProtocolError, match="ada"):
        open_sealed(seal(PACKET, KEY, CONTEXT), KEY.public, changed, "ada")


def test_a_reply_in_anothers_name_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="somebody else's key"):
        open_sealed(seal(PACKET, OTHER, CONTEXT), KEY.public, CONTEXT, "ada")


def test_claiming_anothers_key_without_having_it_is_refused() -> None:
    parts = seal(PACKET, OTHER, CONTEXT)
    parts[SEAL] = parts[SEAL].replace(OTHER.public, KEY.public)
    with pytest.raises(RemoteProtocolError, match="does not fit"):
        open_sealed(parts, KEY.public, CONTEXT, "ada")


def test_every_flipped_byte_of_head_and_seal_is_noticed() -> None:
    parts = seal(PACKET, KEY, CONTEXT)
    for name in ("head", SEAL):
        for at in range(len(parts[name])):
            data = bytearray(parts[name])
            data[at] ^= 0x40
            with pytest.raises(RemoteProtocolError):
                open_sealed({**parts, name: bytes(data)}, KEY.public, CONTEXT, "ada")


def test_a_flipped_byte_of_the_body_is_noticed_when_it_is_decoded() -> None:
    parts = seal(PACKET, KEY, CONTEXT)
    parts["body00000"] = b"\1" + parts["body00000"][1:]
    opened = open_sealed(parts, KEY.public, CONTEXT, "ada")
    with pytest.raises(RemoteProtocolError, match="digest"):
        wire.decode(opened, Report, "ada")


def test_an_unsealed_message_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="not sealed"):
        open_sealed(PACKET.parts(), KEY.public, CONTEXT, "ada")


def test_a_context_with_a_short_field_cannot_be_made() -> None:
    with pytest.raises(LocalProtocolError):
        replace(CONTEXT, nonce=b"short")
