"""A signature holds for one key, one label and one list of parts, and weak keys hold for none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.protocol.signing import (
    BadSignature,
    SigningKey,
    is_weak,
    signed_bytes,
    verify,
)

KEY = SigningKey(b"\x07" * 32)
P = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493
ORDER_EIGHT = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7


def test_rfc_8032_vector():
    """Section 7.1, TEST 3, through the primitive that signing uses."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    secret = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
    public = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
    signature = (
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
    )
    assert SigningKey(secret).public.hex() == public
    assert SigningKey(secret).raw() == secret
    assert Ed25519PrivateKey.from_private_bytes(secret).sign(b"\xaf\x82").hex() == signature


def test_signed_bytes_are_pinned():
    """What is signed must not change with a refactoring: every stored signature would break."""
    assert signed_bytes("roster", b"a", b"").hex() == (
        "6e6f6d6f61742f726f7374657200"
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@given(st.text(st.characters(codec="ascii", exclude_characters="\0")), st.lists(st.binary()))
@settings(max_examples=50, deadline=None)
def test_what_was_signed_verifies(label, parts):
    verify(KEY.public, KEY.sign(label, *parts), label, *parts)


@given(st.lists(st.binary(max_size=8), max_size=4), st.lists(st.binary(max_size=8), max_size=4))
@settings(max_examples=100, deadline=None)
def test_parts_cannot_be_moved_joined_or_cut(signed, claimed):
    signature = KEY.sign("label", *signed)
    if signed == claimed:
        verify(KEY.public, signature, "label", *claimed)
    else:
        with pytest.raises(BadSignature):
            verify(KEY.public, signature, "label", *claimed)


def test_another_label_or_key_does_not_verify():
    signature = KEY.sign("one", b"part")
    for public, label in ((KEY.public, "two"), (SigningKey(b"\x08" * 32).public, "one")):
        with pytest.raises(BadSignature):
            verify(public, signature, label, b"part")


@given(st.integers(0, 511))
@settings(max_examples=60, deadline=None)
def test_any_flipped_bit_breaks_the_signature(bit):
    forged = bytearray(KEY.sign("x", b"part"))
    forged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BadSignature):
        verify(KEY.public, bytes(forged), "x", b"part")


@pytest.mark.parametrize("length", [0, 31, 33, 63, 65, 1000])
def test_wrong_lengths_are_bad_signatures_and_nothing_else(length):
    good = KEY.sign("x", b"part")
    with pytest.raises(BadSignature):
        verify(KEY.public, (good * 20)[:length], "x", b"part")
    with pytest.raises(BadSignature):
        verify((KEY.public * 40)[:length], good, "x", b"part")


def test_a_second_signature_cannot_be_made_from_the_first():
    """S + L satisfies the equation too; RFC 8032 §5.1.7 wants it refused."""
    good = KEY.sign("x", b"part")
    s = int.from_bytes(good[32:], "little") + GROUP_ORDER
    with pytest.raises(BadSignature):
        verify(KEY.public, good[:32] + s.to_bytes(32, "little"), "x", b"part")


def encodings(y):
    """Every 32-byte string that decodes to this y: both signs, reduced or not."""
    for value in (y, y + P):
        for sign in (0, 1):
            if value < 2**255:
                yield (value | sign << 255).to_bytes(32, "little")


@pytest.mark.parametrize("y", [0, 1, P - 1, ORDER_EIGHT, P - ORDER_EIGHT])
def test_keys_anybody_can_sign_for_are_refused(y):
    """With A of small order, R = identity and S = 0 satisfy S·B = R + h·A for 1 in 1…8 messages."""
    forged = (1).to_bytes(32, "little") + bytes(32)
    for public in encodings(y):
        assert is_weak(public)
        for message in range(64):
            with pytest.raises(BadSignature):
                verify(public, forged, "x", bytes([message]))


def test_the_forgery_is_real():
    """The primitive alone accepts it; else the test above would prove nothing."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    identity = (1).to_bytes(32, "little")
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"anything at all")


def test_the_table_of_weak_keys_is_the_curves_torsion():
    """Doubling each point three times gives the identity: −x² + y² = 1 + d x² y² over 2²⁵⁵ − 19."""
    d = -121665 * pow(121666, -1, P) % P

    def root(square):
        x = pow(square, (P + 3) // 8, P)
        return x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P

    def double(x, y):
        product = d * x * x * y * y % P
        return (
            2 * x * y * pow(1 + product, -1, P) % P,
            (y * y + x * x) * pow(1 - product, -1, P) % P,
        )

    for y in (0, 1, P - 1, ORDER_EIGHT, P - ORDER_EIGHT):
        x = root((y * y - 1) * pow(d * y * y + 1, -1, P) % P)
        point = (x, y)
        for _ in range(3):
            point = double(*point)
        assert point == (0, 1)


def test_ordinary_keys_are_not_weak():
    assert not any(is_weak(SigningKey(bytes([i]) * 32).public) for i in range(50))
