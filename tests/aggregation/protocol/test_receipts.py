from __future__ import annotations

from dataclasses import replace

import pytest

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.messages import Report
from nomoat.aggregation.protocol.receipts import (
    Receipt,
    SignedReceipt,
    check,
    credits_of,
    issue,
    packet_digest,
)
from nomoat.aggregation.protocol.signing import SigningKey

COMMUNITY, OTHER = SigningKey(b"c" * 32), SigningKey(b"o" * 32)
VOLUNTEER = SigningKey(b"v" * 32).public
KEYS = CommunityKeys(COMMUNITY.public)


def receipt(number: int = 1, tokens: int = 100, community: bytes = COMMUNITY.public) -> Receipt:
    return Receipt(
        community, VOLUNTEER, number, bytes([number]) * 32, tokens, 1_700_000_000 + number
    )


def test_a_receipt_survives_the_wire_and_is_the_communitys() -> None:
    packet = wire.encode(issue(receipt(), COMMUNITY))
    signed = wire.decode(packet, SignedReceipt, "coordinator")
    assert check(signed, KEYS, VOLUNTEER) == receipt()


@pytest.mark.parametrize("field", ["round", "tokens", "at"])
def test_a_raised_number_breaks_the_signature(field: str) -> None:
    signed = issue(receipt(), COMMUNITY)
    forged = replace(signed.receipt, **{field: getattr(signed.receipt, field) + 1})
    with pytest.raises(RemoteProtocolError, match="signature"):
        check(replace(signed, receipt=forged), KEYS, VOLUNTEER)


def test_a_receipt_signed_by_someone_else_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="signature"):
        check(issue(receipt(), OTHER), KEYS, VOLUNTEER)


def test_another_communitys_and_another_volunteers_receipt_are_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="another community"):
        check(issue(receipt(community=OTHER.public), OTHER), KEYS, VOLUNTEER)
    with pytest.raises(RemoteProtocolError, match="another volunteer"):
        check(issue(receipt(), COMMUNITY), KEYS, OTHER.public)


def test_a_signature_for_another_purpose_is_no_receipt() -> None:
    head = wire.encode(receipt()).head
    signed = SignedReceipt(receipt(), COMMUNITY.sign("roster.entry", head))
    with pytest.raises(RemoteProtocolError, match="signature"):
        check(signed, KEYS, VOLUNTEER)


def test_copies_and_a_second_receipt_for_a_round_add_nothing() -> None:
    found = credits_of([receipt(1), receipt(1), receipt(1, tokens=40), receipt(2, tokens=5)])
    assert [(c.rounds, c.tokens) for c in found] == [(2, 105)]


def test_communities_are_counted_apart() -> None:
    found = credits_of([receipt(1), receipt(1, 7, OTHER.public)])
    assert {c.community: c.tokens for c in found} == {COMMUNITY.public: 100, OTHER.public: 7}
    assert credits_of([]) == ()


def test_a_packets_digest_covers_its_body() -> None:
    one = wire.encode(Report(1, 1, 0.5, b"\0" * 8))
    two = wire.encode(Report(1, 1, 0.5, b"\0" * 7 + b"\1"))
    assert packet_digest(one) != packet_digest(two)
