"""A community's other addresses are believed under its signature, and used when it is silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nomoat.aggregation.errors import RemoteProtocolError, Unreachable
from nomoat.aggregation.protocol.community.addresses import check, sign
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import coordinator_api, known_addresses
from nomoat.client.connection.address_watch import AGAIN_S, ASK_S, PATIENCE_S, AddressWatch
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint
from nomoat.client.connection.known_addresses import KnownAddresses, answering, load, save

KEY = SigningKey(b"\7" * 32)
OLD, NEW = "old.example.org:8443", "new.example.org:9443"


def test_addresses_are_believed_under_the_communitys_signature_alone() -> None:
    said = sign(5, (OLD, NEW), KEY)
    assert check(said, KEY.public) == said
    for lie in (
        replace(said, places=(OLD, "thief.example.org:8443")),
        replace(said, at=6),
        sign(5, (OLD, NEW), SigningKey(b"\1" * 32)),
    ):
        with pytest.raises(RemoteProtocolError, match="not signed by the community"):
            check(lie, KEY.public)


def test_an_older_statement_told_again_changes_nothing() -> None:
    known = KnownAddresses().told(sign(5, (NEW,), KEY))
    assert known.told(sign(4, (OLD,), KEY)) == known
    assert known.told(sign(6, (OLD,), KEY)).places == (OLD,)


def test_a_loopback_address_is_looked_for_by_whoever_is_on_that_machine() -> None:
    known = KnownAddresses(1, (OLD, NEW, "localhost:8443", "[::1]:8443", "127.0.0.1:1"))
    assert known.others(OLD) == (NEW,)
    assert known.others("localhost:7000") == known.places


def test_what_was_learnt_outlives_the_process_and_a_damaged_file_is_learnt_anew(
    tmp_path: Path,
) -> None:
    known = KnownAddresses(5, (OLD, NEW), OLD, 12.5)
    save(tmp_path, known)
    assert load(tmp_path) == known
    for damaged in (b"", b"[]", b'{"places": 3}', b'{"at": 1, "places": [], "x": 1}'):
        (tmp_path / known_addresses.FILE).write_bytes(damaged)
        assert load(tmp_path) == KnownAddresses()


def test_only_a_place_where_the_community_itself_answers_is_gone_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Endpoint] = []

    def look(endpoint: Endpoint, community: bytes, _now: int) -> CommunityInfo | None:
        asked.append(endpoint)
        assert community == KEY.public
        if endpoint.address == OLD:
            raise Unreachable("certificate of somebody else")
        return None

    monkeypatch.setattr(coordinator_api, "look", look)
    coordinator = CoordinatorClient(Endpoint.at(OLD), KEY, KEY.public)
    assert answering((OLD, NEW), b"authority", coordinator) == NEW
    assert answering((OLD,), b"authority", coordinator) is None
    assert {endpoint.ca for endpoint in asked} == {b"authority"}


class Places:
    """What a watch is told, and did."""

    def __init__(self) -> None:
        self.now, self.learnt, self.tried = 0.0, 0, 0
        self.there: str | None = None
        self.moves: list[str] = []
        self.watch = AddressWatch(self._learn, self._elsewhere, self.moves.append, lambda: self.now)

    def _learn(self) -> None:
        self.learnt += 1
        raise Unreachable("away")

    def _elsewhere(self) -> str | None:
        self.tried += 1
        return self.there

    def after(self, seconds: float, up: bool) -> None:
        self.now += seconds
        self.watch.look(up)


def test_a_silent_coordinator_is_looked_for_elsewhere_after_half_a_minute_and_once_a_minute() -> (
    None
):
    places = Places()
    places.after(0, up=True)
    places.after(ASK_S / 2, up=True)
    assert places.learnt == 1
    places.after(0, up=False)
    places.after(PATIENCE_S / 2, up=False)
    assert places.tried == 0
    places.after(PATIENCE_S, up=False)
    places.after(AGAIN_S / 2, up=False)
    assert places.tried == 1
    places.there = NEW
    places.after(AGAIN_S, up=False)
    assert places.moves == [NEW]


def test_a_line_that_comes_back_is_not_left() -> None:
    places = Places()
    places.there = NEW
    for _ in range(5):
        places.after(PATIENCE_S - 1, up=False)
        places.after(1, up=True)
    assert (places.moves, places.tried) == ([], 0)
    assert places.learnt == 5  # whenever it is back: it may have been started anew to say more
