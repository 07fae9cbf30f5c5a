"""A porter's limits are its part of the whole, and it counts whom the round process names."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, prove
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.fleet.sealed_grid import Addressee
from nomoat.server.port.request_limits import Caps
from nomoat.server.porters.frames import MemberChanges
from nomoat.server.porters.member_book import MemberBook
from nomoat.server.porters.porter import PorterSettings, divided
from nomoat.server.porters.team import changes

ADA, BEN = Addressee("ada", b"\1" * 32), Addressee("ben", b"\2" * 32)
NOW, COMMUNITY = 1_700_000_000, b"\7" * 32


def test_all_porters_together_allow_what_one_port_does() -> None:
    whole = Caps()
    for count in (1, 2, 3, 8):
        part = divided(whole, count)
        for rate, of in (
            (part.address, whole.address),
            (part.stranger, whole.stranger),
            (part.node, whole.node),
        ):
            assert count * rate.per_s <= of.per_s * (1 + 1e-12)
            assert count * rate.burst <= of.burst * (1 + 1e-12)
        assert count * part.in_flight_bytes <= whole.in_flight_bytes
        assert part.body_bytes == whole.body_bytes


def test_a_porter_is_told_of_those_alone_who_came_went_or_are_others_now() -> None:
    told = {b"a": ADA, b"b": BEN, b"c": ADA}
    known = {b"a": ADA, b"b": replace(BEN, name="bea"), b"d": BEN}
    assert changes(told, known) == MemberChanges(
        ((b"b", "bea", BEN.identity), (b"d", "ben", BEN.identity)), (b"c",)
    )
    assert changes(known, known) == MemberChanges((), ())


def test_whoever_proves_to_be_a_member_is_counted_by_its_name_until_it_is_gone() -> None:
    key = SigningKey(b"\3" * 32)
    proof = prove(key, COMMUNITY, "GET /roster?after=3", NOW)
    heads = [(PROOF_HEADER.encode(), proof.encode())]
    scope = {"method": "GET", "path": "/roster", "query_string": b"after=3", "headers": heads}
    book = MemberBook(COMMUNITY, lambda: NOW)

    def asker() -> str | None:
        return asyncio.run(book.member(dict(scope)))

    assert asker() is None
    book.take(MemberChanges(((b"pem", "ada", key.public),), ()))
    assert asker() == "ada"
    scope["query_string"] = b"after=4"  # it was not signed for that
    assert asker() is None
    scope["query_string"] = b"after=3"
    book.take(MemberChanges((), (b"pem",)))
    assert asker() is None


def test_settings_go_through_a_command_line() -> None:
    given = PorterSettings("::", 8443, "/c d", "/k", 2, "/f", "ab", ["10.0.0.0/8"], 30)
    assert PorterSettings.of(given.word()) == given
