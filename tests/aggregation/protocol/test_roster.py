"""The roster cannot be rewritten, forged or made to say what its table does not allow."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Binding, Standing, bind, check_binding
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.roster import (
    STANDINGS,
    Event,
    Page,
    Roster,
    SignedEntry,
    accept_page,
    append,
    extend,
)
from nomoat.aggregation.protocol.signing import SigningKey

COMMUNITY = SigningKey(b"\7" * 32)
NODE_KEYS = [ec.derive_private_key(1000 + i, ec.SECP384R1()) for i in range(4)]


def person(number: int, name: str | None = None) -> Binding:
    identity = SigningKey(bytes([number + 1]) * 32)
    return bind(name or f"vol{number}", identity, NODE_KEYS[number], COMMUNITY.public)


def grown(*steps: tuple[Event, Binding]) -> tuple[Roster, list[SignedEntry]]:
    roster, entries = Roster.empty(CommunityKeys(COMMUNITY.public)), []
    for at, (event, who) in enumerate(steps):
        entries.append(append(roster, event, who, COMMUNITY, at, "because"))
        roster = extend(roster, entries[-1:])
    return roster, entries


def resigned(entry: SignedEntry, key: SigningKey, **changes: object) -> SignedEntry:
    changed = replace(entry.entry, **changes)  # type: ignore[arg-type]
    data = wire.encode(SignedEntry(changed, bytes(64))).head
    return SignedEntry(changed, key.sign("roster.entry", data))


def test_a_log_survives_the_wire_and_tells_everyones_standing() -> None:
    roster, entries = grown(
        (Event.JOIN, person(0)), (Event.JOIN, person(1)), (Event.BAN, person(0))
    )
    page = Page(3, tuple(entries))
    read = wire.decode(wire.encode(page), Page, "coordinator")
    again = accept_page(Roster.empty(CommunityKeys(COMMUNITY.public)), read)
    assert again == roster
    assert {n: m.standing for n, m in again.members.items()} == {
        "vol0": Standing.BANNED,
        "vol1": Standing.APPROVED,
    }


def test_a_pinned_roster_accepts_only_its_own_continuation() -> None:
    seen, _ = grown((Event.JOIN, person(0)))
    _, other = grown((Event.JOIN, person(1)), (Event.JOIN, person(2)))
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        extend(seen, other[1:])


def test_a_shorter_roster_than_was_seen_is_refused() -> None:
    seen, _ = grown((Event.JOIN, person(0)), (Event.JOIN, person(1)))
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        accept_page(seen, Page(1, ()))


def test_a_page_that_stops_short_without_entries_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="wrong length"):
        accept_page(Roster.empty(CommunityKeys(COMMUNITY.public)), Page(5, ()))


def test_dropping_an_entry_is_noticed() -> None:
    _, entries = grown((Event.JOIN, person(0)), (Event.BAN, person(0)), (Event.JOIN, person(1)))
    with pytest.raises(RemoteProtocolError, match="rewritten"):
        extend(Roster.empty(CommunityKeys(COMMUNITY.public)), [entries[0], entries[2]])


def test_an_entry_signed_by_anybody_else_is_refused() -> None:
    _, entries = grown((Event.JOIN, person(0)))
    forged = resigned(entries[0], SigningKey(b"\x09" * 32))
    with pytest.raises(RemoteProtocolError, match="not signed by the community"):
        extend(Roster.empty(CommunityKeys(COMMUNITY.public)), [forged])


def test_even_the_community_cannot_enrol_keys_that_did_not_agree() -> None:
    _, entries = grown((Event.JOIN, person(0)))
    binding = entries[0].entry.binding
    assert binding is not None
    stolen = replace(binding, node_key=person(1).node_key)
    forged = resigned(entries[0], COMMUNITY, binding=stolen)
    with pytest.raises(RemoteProtocolError, match="vouch"):
        extend(Roster.empty(CommunityKeys(COMMUNITY.public)), [forged])


def test_two_names_cannot_share_a_key() -> None:
    roster, _ = grown((Event.JOIN, person(0)))
    twin = bind("twin", SigningKey(b"\1" * 32), NODE_KEYS[3], COMMUNITY.public)
    with pytest.raises(RemoteProtocolError, match="another name"):
        append(roster, Event.JOIN, twin, COMMUNITY, 1)


def test_a_ban_of_another_key_under_the_same_name_is_refused() -> None:
    roster, _ = grown((Event.JOIN, person(0)))
    with pytest.raises(RemoteProtocolError, match="another key"):
        append(roster, Event.BAN, person(1, "vol0"), COMMUNITY, 1)


@pytest.mark.parametrize("standing", [None, *Standing])
@pytest.mark.parametrize("event", list(Event))
def test_only_the_moves_of_the_table_are_possible(standing: Standing | None, event: Event) -> None:
    paths = {
        None: (),
        Standing.APPROVED: (Event.JOIN,),
        Standing.HELD: (Event.JOIN, Event.HOLD),
        Standing.BANNED: (Event.JOIN, Event.BAN),
        Standing.LEFT: (Event.JOIN, Event.LEAVE),
    }
    if standing is Standing.PENDING:
        return  # never in the roster
    roster, _ = grown(*((step, person(0)) for step in paths[standing]))
    if (standing, event) in STANDINGS:
        signed = append(roster, event, person(0), COMMUNITY, 9)
        after = extend(roster, [signed]).members["vol0"].standing
        assert after is STANDINGS[standing, event]
    else:
        with pytest.raises(RemoteProtocolError):
            append(roster, event, person(0), COMMUNITY, 9)


def on_machine(number: int, machine: int, name: str | None = None) -> Binding:
    identity = SigningKey(bytes([number + 1]) * 32)
    return bind(name or f"vol{number}", identity, NODE_KEYS[machine], COMMUNITY.public)


def test_whoever_left_joins_again_with_a_new_node_key_and_its_old_one_is_free() -> None:
    came_back = on_machine(0, 3)
    steps = [
        (Event.JOIN, person(0)),
        (Event.LEAVE, person(0)),
        (Event.JOIN, came_back),
        (Event.JOIN, on_machine(1, 0)),  # the machine it left behind
    ]
    roster, entries = grown(*steps)
    assert roster.members["vol0"].binding == came_back
    assert roster.approved() == {person(0).identity: "vol0", person(1).identity: "vol1"}
    at_once = extend(Roster.empty(CommunityKeys(COMMUNITY.public)), entries)
    assert at_once == roster  # in one page or entry by entry


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (on_machine(2, 3, "vol0"), "another key"),  # another person under the name
        (on_machine(0, 3, "other"), "another name"),  # the person under another name
        (on_machine(0, 1), "another name"),  # with somebody else's machine
    ],
)
def test_a_return_takes_no_name_and_no_key_of_anybody(who: Binding, words: str) -> None:
    roster, _ = grown((Event.JOIN, person(0)), (Event.JOIN, person(1)), (Event.LEAVE, person(0)))
    with pytest.raises(RemoteProtocolError, match=words):
        append(roster, Event.JOIN, who, COMMUNITY, 9)


def test_a_binding_for_another_community_is_refused() -> None:
    elsewhere = SigningKey(b"\x08" * 32).public
    with pytest.raises(RemoteProtocolError, match="vouch"):
        check_binding(person(0), elsewhere)


def test_a_node_key_of_another_curve_is_refused() -> None:
    small = ec.derive_private_key(77, ec.SECP256R1())
    binding = bind("vol0", SigningKey(b"\1" * 32), small, COMMUNITY.public)
    with pytest.raises(RemoteProtocolError, match="P-384"):
        check_binding(binding, COMMUNITY.public)
