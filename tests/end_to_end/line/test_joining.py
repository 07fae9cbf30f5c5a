"""Joining over the real port: what is checked before anything of the volunteer's leaves."""

from __future__ import annotations

import dataclasses
import datetime
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import adapter
from nomoat.aggregation.errors import (
    Incompatible,
    NomoatError,
    Refused,
    RemoteProtocolError,
    Unreachable,
)
from nomoat.aggregation.protocol import roster
from nomoat.aggregation.protocol.community.spoken import SpokenVersions
from nomoat.aggregation.protocol.enrolment import Standing, node_public_der
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.invitation import Invitation, from_link
from nomoat.aggregation.protocol.receipts import Receipt, SignedReceipt, issue
from nomoat.aggregation.protocol.roster import Event, Roster
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import (
    CoordinatorClient,
    check_own_entry,
    endpoint_of,
    extend_roster,
    look,
)
from nomoat.client.connection.https import Endpoint, call
from nomoat.server.community import certificates
from nomoat.server.community.versions import Provenance
from nomoat.server.port import routes
from nomoat.server.port.http_app import make_app
from nomoat.server.port.listening import ListenOptions, serving


def now() -> int:
    """Return the time in seconds: a suite may come here long after it was collected."""
    return int(time.time())


def test_a_link_leads_to_the_community_it_names_and_into_its_roster(town: Any, people: Any) -> None:
    invitation = from_link(town.link())
    info = look(endpoint_of(invitation), invitation.claims.community, now())
    assert (info.name, info.base_hash, info.ca) == ("town", b"\xab" * 32, town.endpoint().ca)
    (person,) = people(1)
    public = town.folder.key().public
    known, added = extend_roster(person.coordinator, Roster.empty(CommunityKeys(public)), now())
    check_own_entry(
        known, person.coordinator, person.name, node_public_der(person.node_key.public_key())
    )
    assert (known, len(added)) == (town.registrar.roster(), known.length)


def test_another_authority_than_the_links_is_refused(town: Any) -> None:
    endpoint = dataclasses.replace(endpoint_of(from_link(town.link())), fingerprint=b"\0" * 32)
    with pytest.raises(Refused, match="another certificate"):
        look(endpoint, town.folder.key().public, now())


def test_whoever_passes_on_what_the_community_signed_learns_nothing(
    town: Any, tmp_path: Any
) -> None:
    """A man in the middle: the community's true words, under a certificate of his own."""
    truth = call(town.endpoint(), "GET", "/community")
    asked: list[tuple[str, str]] = []

    async def relay(scope: Any, receive: Any, send: Any) -> None:
        asked.append((scope["method"], scope["path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": truth})

    today = datetime.datetime.now(datetime.UTC)
    own = certificates.make_server(certificates.make_authority("x", today), ["localhost"], today)
    with serving(relay, listening(tmp_path, own)) as port:
        endpoint = dataclasses.replace(endpoint_of(from_link(town.link())), port=port)
        with pytest.raises(Refused, match="somebody is between"):
            look(endpoint, town.folder.key().public, now())
    assert asked == [("GET", "/community")]


def test_an_invitation_outlives_the_renewal_of_the_certificate(town: Any, tmp_path: Any) -> None:
    invitation = from_link(town.link())
    today = datetime.datetime.now(datetime.UTC)
    renewed = certificates.make_server(town.folder.authority(), ["localhost"], today)
    with serving(make_app(town.desk), listening(tmp_path, renewed)) as port:
        endpoint = dataclasses.replace(endpoint_of(invitation), port=port)
        assert look(endpoint, invitation.claims.community, now()).name == "town"


def test_nothing_of_ours_goes_where_the_authority_is_not_known(town: Any) -> None:
    endpoint = endpoint_of(from_link(town.link()))
    with pytest.raises(ValueError, match="nothing of ours"):
        call(endpoint, "POST", "/enroll", body=b"me")


def listening(folder: Any, issued: certificates.IssuedCertificate) -> ListenOptions:
    (folder / "c").write_bytes(issued.certificate)
    (folder / "k").write_bytes(issued.key)
    return ListenOptions("127.0.0.1", 0, folder / "c", folder / "k")


def test_a_host_the_certificate_does_not_name_is_refused(town: Any) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.2"):
        call(town.endpoint("127.0.0.2"), "GET", "/community")


def test_another_authority_is_refused(town: Any) -> None:
    other = certificates.make_authority("other", datetime.datetime.now(datetime.UTC))
    endpoint = dataclasses.replace(town.endpoint(), ca=other.certificate)
    with pytest.raises(Unreachable, match=r"verif|self-signed|issuer"):
        call(endpoint, "GET", "/community")


def test_an_expired_certificate_is_one_clear_line(town: Any, tmp_path: Any) -> None:
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=900)
    old = certificates.make_server(town.folder.authority(), ["localhost"], long_ago)

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with serving(nothing, listening(tmp_path, old)) as port:
        endpoint = Endpoint("localhost", port, ca=town.endpoint().ca)
        with pytest.raises(Unreachable, match=r"expired.*restarting nomoat up"):
            call(endpoint, "GET", "/community")


def test_a_port_in_use_is_one_clear_line(town: Any) -> None:
    listening = ListenOptions(
        "127.0.0.1", town.port, town.folder.server_certificate, town.folder.server_key
    )
    with (
        pytest.raises(NomoatError, match=rf"cannot listen on 127.0.0.1:{town.port}.*--port"),
        serving(lambda *_: None, listening),  # type: ignore[arg-type, return-value]
    ):
        pass


def test_nobody_listening_is_unreachable(town: Any) -> None:
    with pytest.raises(Unreachable, match="is the coordinator running"):
        call(Endpoint("localhost", 1, ca=town.endpoint().ca), "GET", "/community")


def test_another_community_behind_the_same_address_is_refused(town: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="not the community the invitation names"):
        look(endpoint_of(from_link(town.link())), SigningKey(b"\x08" * 32).public, now())


def test_a_clock_that_is_off_is_told_by_how_much(town: Any) -> None:
    endpoint = endpoint_of(from_link(town.link()))
    with pytest.raises(NomoatError, match=r"clock is \d+ s ahead"):
        look(endpoint, town.folder.key().public, int(time.time()) + 1000)


@pytest.mark.parametrize(
    ("low", "high", "ours", "who"),
    [(2, 3, 1, "upgrade this nomoat"), (1, 2, 3, "its coordinator must install nomoat")],
)
def test_incompatible_protocols_say_which_side_must_upgrade(
    town: Any, low: int, high: int, ours: int, who: str
) -> None:
    info = dataclasses.replace(town.desk.info(now()), protocol_low=low, protocol_high=high)
    with pytest.raises(Incompatible, match=who):
        coordinator_api.check_protocol(info, SpokenVersions(ours, ours))
    coordinator_api.check_protocol(info, SpokenVersions(1, 3))


def test_a_spent_and_a_forged_invitation_are_refused_over_the_line(town: Any, people: Any) -> None:
    (person,) = people(1)
    stranger = type(person)(town, 200)
    link = town.link(uses=1)
    assert type(person)(town, 201).enrol(link) is Standing.APPROVED
    with pytest.raises(Refused, match="used up"):
        stranger.enrol(link)
    assert person.enrol(link) is Standing.APPROVED  # only asks where it stands
    invitation = from_link(link)
    forged = Invitation(dataclasses.replace(invitation.claims, uses=1000), invitation.signature)
    with pytest.raises(RemoteProtocolError, match="forged"):
        coordinator_api.enrol(
            stranger.coordinator, stranger.name, stranger.node_key, forged.token()
        )


def test_a_rewritten_roster_is_noticed_by_whoever_saw_the_first(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (person,) = people(1)
    public = town.folder.key().public
    seen, _ = extend_roster(person.coordinator, Roster.empty(CommunityKeys(public)), now())
    entries = town.registrar.database.roster_entries(0)
    shorter = roster.Page(1, tuple(entries[:1]))
    monkeypatch.setattr(town.registrar, "page", lambda _: shorter)
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        extend_roster(person.coordinator, seen, now())
    another = roster.append(
        roster.extend(Roster.empty(CommunityKeys(public)), entries[:-1]), Event.BAN,
        entries[0].entry.binding, town.folder.key(), now(),
    )  # fmt: skip
    forked = roster.Page(seen.length + 1, (another,))
    monkeypatch.setattr(town.registrar, "page", lambda _: forked)
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        extend_roster(person.coordinator, seen, now())


def test_members_only_see_the_roster_and_the_adapters(town: Any, people: Any) -> None:
    (person,) = people(1)
    record = town.desk.versions.add(adapter(1), Provenance(0, "fedavg", (), None, None), now())
    assert np.array_equal(
        coordinator_api.download(person.coordinator, record, now()).vector, adapter(1).vector
    )
    with pytest.raises(RemoteProtocolError, match="prove"):
        call(town.endpoint(), "GET", "/roster?after=0")
    stranger = CoordinatorClient(
        town.endpoint(), SigningKey(b"\x63" * 32), person.coordinator.community
    )
    with pytest.raises(Refused, match="approved"):
        coordinator_api.download(stranger, record, now())
    with pytest.raises(RemoteProtocolError, match="clock"):
        coordinator_api.download(
            person.coordinator, record, now() - 1000
        )  # an old proof, played again
    town.registrar.order(person.name, Event.BAN, "", now())
    with pytest.raises(Refused):
        coordinator_api.download(person.coordinator, record, now())


def test_versions_are_followed_and_a_swapped_file_is_refused(town: Any, people: Any) -> None:
    (person,) = people(1)
    newest = None
    for seed in (10, 11):
        town.desk.versions.add(adapter(seed), Provenance(seed, "fedavg", (), 1.0, 2.0), now())
        newest = coordinator_api.lineage_since(person.coordinator, newest, now())
        assert newest.record.version.adapter == adapter(seed).digest
        assert newest.ended.round == seed
    other = town.desk.versions.path(adapter(10).digest).read_bytes()
    town.desk.versions.path(adapter(11).digest).write_bytes(other)
    with pytest.raises(RemoteProtocolError, match="not the one"):
        coordinator_api.download(person.coordinator, newest.record, now())


def test_receipts_are_a_volunteers_own_and_a_forged_one_is_refused(
    town: Any, people: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = people(2)
    key, store = town.registrar.key, town.registrar.database

    def receipt(person: Any, number: int, packet: bytes) -> SignedReceipt:
        mine = Receipt(key.public, person.coordinator.identity.public, number, packet, 70, now())
        return issue(mine, key)

    monkeypatch.setattr(routes, "PAGE", 2)
    monkeypatch.setattr(coordinator_api, "PAGE", 2)
    for number in range(1, 6):
        store.put_receipt(receipt(one, number, bytes([number]) * 32))
    store.put_receipt(receipt(other, 9, b"o" * 32))
    found = coordinator_api.receipts(one.coordinator, 0, now())
    assert {signed.receipt.round for signed in found} == {1, 2, 3, 4, 5}
    assert [s.receipt.round for s in coordinator_api.receipts(other.coordinator, 9, now())] == [9]
    forged = dataclasses.replace(receipt(one, 6, b"f" * 32), signature=bytes(64))
    store.put_receipt(forged)
    with pytest.raises(RemoteProtocolError, match="signature"):
        coordinator_api.receipts(one.coordinator, 0, now())


def test_whoever_leaves_is_out_at_once(town: Any, people: Any) -> None:
    (person,) = people(1)
    person.serve()
    town.wait_for(person.name)
    coordinator_api.leave(person.coordinator, now())
    assert person.name not in town.fleet_grid.online()
    assert town.registrar.roster().members[person.name].standing is Standing.LEFT
    coordinator_api.leave(person.coordinator, now())  # twice does no harm


def test_whoever_left_comes_back_from_another_machine_and_everybody_follows(
    town: Any, people: Any
) -> None:
    person, other = people(2)
    seen, _ = extend_roster(
        other.coordinator, Roster.empty(CommunityKeys(town.folder.key().public)), now()
    )
    coordinator_api.leave(person.coordinator, now())
    person.node_key = ec.derive_private_key(7700, ec.SECP384R1())
    assert person.enrol(town.link()) is Standing.APPROVED
    known, _ = extend_roster(other.coordinator, seen, now())
    der = node_public_der(person.node_key.public_key())
    check_own_entry(known, person.coordinator, person.name, der)
    person.serve()
    (reply,) = town.replies(town.ask("hello", [person.name]), 1)
    assert not reply.has_error()


@pytest.mark.parametrize(
    "room",
    [
        "client.connection.message_loop",
        "client.round.app",
        "server.port.http_app",
        "server.rounds.coordinator",
    ],
)
def test_flower_is_never_imported_with_its_telemetry_on(room: str) -> None:
    program = (
        f"import nomoat.{room}\n"
        "from flwr.supercore import telemetry\n"
        "import os\n"
        "print(telemetry.FLWR_TELEMETRY_ENABLED, os.environ['FLWR_DISABLE_UPDATE_CHECK'])"
    )
    told = {**os.environ, "FLWR_TELEMETRY_ENABLED": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "1"]
