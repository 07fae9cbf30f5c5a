"""An invitation survives its link and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.invitation import Claims, Invitation, from_link, from_token, issue
from nomoat.aggregation.protocol.signing import SigningKey

KEY = SigningKey(b"\7" * 32)
CLAIMS = Claims("train.example.org:8443", b"f" * 32, KEY.public, b"i" * 16, 25, 2_000_000_000)


def test_a_link_gives_back_what_was_issued_and_fits_a_qr_code() -> None:
    link = issue(CLAIMS, KEY).link()
    assert link.startswith("nomoat://join/")
    assert from_link(f"  {link}\n").claims == CLAIMS
    assert len(link) < 500  # a QR code of version 15 or less, readable from a screen


def test_every_altered_claim_is_noticed() -> None:
    signed = issue(CLAIMS, KEY)
    for changed in (
        replace(CLAIMS, address="evil.example.org:8443"),
        replace(CLAIMS, certificate=b"e" * 32),
        replace(CLAIMS, uses=1_000_000),
        replace(CLAIMS, expires=2_100_000_000),
    ):
        with pytest.raises(RemoteProtocolError, match="forged"):
            from_link(Invitation(changed, signed.signature).link())


def test_an_invitation_signed_by_another_community_is_refused_here() -> None:
    stranger = SigningKey(b"\x08" * 32)
    token = issue(replace(CLAIMS, community=stranger.public), stranger).token()
    assert from_token(token).claims.community == stranger.public  # fine on its own
    with pytest.raises(RemoteProtocolError, match="another community"):
        from_token(token, KEY.public)


def test_naming_our_community_with_another_key_is_forgery() -> None:
    token = issue(CLAIMS, SigningKey(b"\x08" * 32)).token()
    with pytest.raises(RemoteProtocolError, match="forged"):
        from_token(token, KEY.public)


def test_every_cut_or_mistyped_link_is_one_clear_error() -> None:
    link = issue(CLAIMS, KEY).link()
    for end in range(len(link)):
        with pytest.raises(RemoteProtocolError):
            from_link(link[:end])
    for wrong in ("https://example.org", "nomoat://", link.replace("join/", "join/é"), link * 20):
        with pytest.raises(RemoteProtocolError):
            from_link(wrong)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_never_an_invitation(token: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        from_token(token, KEY.public)
