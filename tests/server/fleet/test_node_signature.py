"""The signature in a call's head is checked as Flower's nodes make it."""

from __future__ import annotations

import datetime
from base64 import b64encode

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from nomoat.server.fleet import node_signature as ours

KEY = ec.generate_private_key(ec.SECP384R1())
PEM = public_key_to_bytes(KEY.public_key())


def head(age_s: float, key: bytes = PEM) -> dict[bytes, bytes]:
    now = datetime.datetime.now(tz=datetime.UTC)
    stamp = (now - datetime.timedelta(seconds=age_s)).isoformat().encode()
    return {
        ours.KEY_HEADER.encode(): b64encode(key),
        ours.TIME_HEADER.encode(): stamp,
        ours.SIGNATURE_HEADER.encode(): b64encode(sign_message(KEY, stamp)),
    }


def test_the_names_are_flowers() -> None:
    assert FLEET_HTTP_PUBLIC_KEY_HEADER.lower() == ours.KEY_HEADER
    assert FLEET_HTTP_SIGNATURE_HEADER.lower() == ours.SIGNATURE_HEADER
    assert TIMESTAMP_HEADER.lower() == ours.TIME_HEADER
    assert ours.OLDEST_S == TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE
    assert ours.NEWEST_S == -SYSTEM_TIME_TOLERANCE


def test_a_time_of_the_last_minutes_signed_with_the_key_is_good_and_nothing_else() -> None:
    good = head(1.0)
    assert ours.claimed_key(good) == PEM
    assert ours.signed_just_now(good, PEM)
    other = public_key_to_bytes(ec.generate_private_key(ec.SECP384R1()).public_key())
    assert not ours.signed_just_now(good, other)
    assert not ours.signed_just_now(good, b"no key")
    for bad in (
        head(310.0),
        head(-10.0),
        {**good, ours.TIME_HEADER.encode(): b"2026"},
        {**good, ours.SIGNATURE_HEADER.encode(): b"!"},
        {},
    ):
        assert not ours.signed_just_now(bad, PEM)
