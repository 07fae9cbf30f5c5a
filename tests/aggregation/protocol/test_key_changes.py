"""A community's key is changed under both keys, once in each place, and nobody takes that back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, receipts, roster, wire
from nomoat.aggregation.protocol.enrolment import bind
from nomoat.aggregation.protocol.history.key_changes import (
    CommunityKeys,
    KeyChange,
    KeyChanges,
    opened,
    sign,
)
from nomoat.aggregation.protocol.lineage import SignedVersion, Version, check_chain
from nomoat.aggregation.protocol.receipts import Receipt
from nomoat.aggregation.protocol.roster import Event, Roster
from nomoat.aggregation.protocol.signing import SigningKey

KEYS = [SigningKey(bytes([40 + number]) * 32) for number in range(4)]
THIEF = SigningKey(b"t" * 32)
FOUNDING = CommunityKeys(KEYS[0].public)


def blank(keys: CommunityKeys, old: SigningKey, new: SigningKey, at: int = 10) -> KeyChange:
    """A change after `at` entries, version `at` and round `at`."""
    previous = keys.changes[-1].digest if keys.changes else keys.id
    place = (at, bytes(32), at, bytes(32), at)
    number = len(keys.changes) + 1
    return KeyChange(number, previous, old.public, new.public, *place, 5, bytes(64), bytes(64))


def changed(keys: CommunityKeys, old: SigningKey, new: SigningKey, at: int = 10) -> CommunityKeys:
    return keys.followed_by(sign(blank(keys, old, new, at), keys, old, new), "test")


def all_changes() -> CommunityKeys:
    """Three changes, after 10, 20 and 30 of everything."""
    keys = FOUNDING
    for number, (old, new) in enumerate(pairwise(KEYS), start=1):
        keys = changed(keys, old, new, 10 * number)
    return keys


def test_a_volunteer_that_was_away_follows_several_changes_at_once() -> None:
    told = wire.decode(wire.encode(all_changes().message()), KeyChanges, "test")
    assert FOUNDING.extended(told, "test") == all_changes()
    seen_first = changed(FOUNDING, KEYS[0], KEYS[1])
    assert seen_first.extended(told, "test").current == KEYS[3].public
    assert opened(told, "test").id == FOUNDING.id


def test_each_place_belongs_to_the_key_of_its_time() -> None:
    keys = all_changes()
    assert [keys.of_entry(index) for index in (0, 9, 10, 29, 30)] == [
        KEYS[number].public for number in (0, 0, 1, 2, 3)
    ]
    assert [keys.of_version(number) for number in (0, 10, 11, 30, 31)] == [
        KEYS[number].public for number in (0, 0, 1, 2, 3)
    ]
    assert keys.of_round(10) == tuple(key.public for key in KEYS)  # its end is signed when asked
    assert keys.of_round(11) == tuple(key.public for key in KEYS[1:])
    assert keys.of_round(31) == (KEYS[3].public,)


@pytest.mark.parametrize("signers", [(THIEF, KEYS[1]), (KEYS[0], THIEF), (KEYS[1], KEYS[0])])
def test_a_change_without_both_signatures_is_refused(
    signers: tuple[SigningKey, SigningKey],
) -> None:
    forged = sign(blank(FOUNDING, KEYS[0], KEYS[1]), FOUNDING, *signers)
    with pytest.raises(RemoteProtocolError, match="not signed by both keys"):
        FOUNDING.followed_by(forged, "test")


@pytest.mark.parametrize("changes", [0, 1, 2])
def test_whoever_stole_a_key_that_ended_announces_no_other_one(changes: int) -> None:
    seen, truth = all_changes(), FOUNDING
    for number in range(changes):
        truth = changed(truth, KEYS[number], KEYS[number + 1], 10 * (number + 1))
    stolen = KEYS[changes]
    fork = changed(truth, stolen, THIEF, 10 * (changes + 1))
    with pytest.raises(RemoteProtocolError, match="takes back or forks"):
        seen.extended(fork.message(), "test")
    on_top = sign(blank(seen, stolen, THIEF, 40), seen, stolen, THIEF)
    with pytest.raises(RemoteProtocolError, match="does not follow"):
        seen.followed_by(on_top, "test")


def test_a_change_that_is_left_out_or_altered_is_refused() -> None:
    keys = all_changes()
    first, second, third = keys.changes
    for changes in ((), (first,), (first, third), (second, first, third)):
        with pytest.raises(RemoteProtocolError):
            keys.extended(KeyChanges(keys.founding, changes), "test")
    with pytest.raises(RemoteProtocolError, match="does not follow"):
        FOUNDING.extended(KeyChanges(keys.founding, (first, third)), "test")
    with pytest.raises(RemoteProtocolError, match="both keys"):
        FOUNDING.extended(KeyChanges(keys.founding, (replace(first, version=9),)), "test")
    with pytest.raises(RemoteProtocolError, match="another community"):
        keys.extended(KeyChanges(THIEF.public, ()), "test")


def test_no_key_comes_back_and_no_place_goes_back() -> None:
    once = changed(FOUNDING, KEYS[0], KEYS[1], 10)
    with pytest.raises(RemoteProtocolError, match="may not have"):
        changed(once, KEYS[1], KEYS[0], 20)
    with pytest.raises(RemoteProtocolError, match="before the last"):
        changed(once, KEYS[1], KEYS[2], 9)


def entry(known: Roster, number: int, key: SigningKey) -> roster.SignedEntry:
    """The next entry of a roster, under a key that may be none of its own."""
    identity, node = (
        SigningKey(bytes([number + 1]) * 32),
        ec.derive_private_key(number + 1, ec.SECP384R1()),
    )
    binding = bind(f"vol{number}", identity, node, KEYS[0].public)
    made = roster.append(
        replace(known, keys=CommunityKeys(KEYS[0].public)), Event.JOIN, binding, KEYS[0], 1
    )
    return roster.SignedEntry(made.entry, key.sign(roster.LABEL, roster._entry_bytes(made.entry)))


def test_the_roster_goes_on_under_the_new_key_and_not_under_the_old_one() -> None:
    first = entry(Roster.empty(FOUNDING), 0, KEYS[0])
    known = roster.extend(Roster.empty(FOUNDING), [first])
    unsigned = replace(blank(FOUNDING, KEYS[0], KEYS[1], 1), roster_head=known.head)
    keys = FOUNDING.followed_by(sign(unsigned, FOUNDING, KEYS[0], KEYS[1]), "test")
    known = roster.extend(Roster.empty(keys), [first])
    assert roster.extend(known, [entry(known, 1, KEYS[1])]).length == 2
    with pytest.raises(RemoteProtocolError, match="not signed by the community"):
        roster.extend(known, [entry(known, 1, KEYS[0])])
    with pytest.raises(RemoteProtocolError, match="under another roster"):
        roster.extend(Roster.empty(keys), [entry(Roster.empty(FOUNDING), 5, KEYS[0])])


def version(number: int, parent: bytes, key: SigningKey, note: str = "") -> SignedVersion:
    made = Version(
        number, parent, b"a" * 32, BASE, number, "fedavg", ("ada",), 1.0, 1.0, 1.0, note, 1
    )
    return lineage.sign(made, key)


def test_versions_go_on_under_the_new_key_and_not_under_the_old_one() -> None:
    first = version(0, FOUNDING.id, KEYS[0])
    unsigned = replace(blank(FOUNDING, KEYS[0], KEYS[1], 0), record=first.digest)
    keys = FOUNDING.followed_by(sign(unsigned, FOUNDING, KEYS[0], KEYS[1]), "test")
    assert check_chain(None, [first, version(1, first.digest, KEYS[1])], keys) is not None
    with pytest.raises(RemoteProtocolError, match="not signed by the community"):
        check_chain(None, [first, version(1, first.digest, KEYS[0])], keys)
    with pytest.raises(RemoteProtocolError, match="under another version"):
        check_chain(None, [version(0, FOUNDING.id, KEYS[0], "another")], keys)


def test_receipts_of_before_stay_good_and_the_old_key_gives_no_more() -> None:
    keys, volunteer = changed(FOUNDING, KEYS[0], KEYS[1]), b"v" * 32
    for number, key in ((10, KEYS[0]), (11, KEYS[1])):
        receipt = Receipt(keys.founding, volunteer, number, b"p" * 32, 5, 1)
        assert receipts.check(receipts.issue(receipt, key), keys, volunteer) == receipt
    late = receipts.issue(Receipt(keys.founding, volunteer, 11, b"p" * 32, 5, 1), KEYS[0])
    with pytest.raises(RemoteProtocolError, match="signature"):
        receipts.check(late, keys, volunteer)
