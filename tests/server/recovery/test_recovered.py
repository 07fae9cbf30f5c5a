"""What comes back follows from the backup, and the latest state that anybody holds wins."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import BASE
from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage, roster
from nomoat.aggregation.protocol.enrolment import bind, community_id
from nomoat.aggregation.protocol.history import recovery
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.recovery import Holding
from nomoat.aggregation.protocol.lineage import SignedVersion, Version
from nomoat.aggregation.protocol.roster import Event, Roster, SignedEntry
from nomoat.aggregation.protocol.round_end import Lineage, LineagePage, sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.recovery.recovered import Recovered

KEY, ANOTHER = SigningKey(b"\7" * 32), SigningKey(b"\10" * 32)


def record(
    parent: SignedVersion | None, round_number: int, key: SigningKey = KEY, tag: int = 0
) -> SignedVersion:
    number = 0 if parent is None else parent.version.number + 1
    before = community_id(KEY.public) if parent is None else parent.digest
    adapter = bytes([number, tag]) * 16
    version = Version(
        number, before, adapter, BASE, round_number, "fedavg", (), None, None, None, "", 9
    )
    return lineage.sign(version, key)


def chain(after: SignedVersion, rounds: list[int], tag: int = 0) -> tuple[SignedVersion, ...]:
    records: list[SignedVersion] = []
    for number in rounds:
        records.append(record(records[-1] if records else after, number, tag=tag))
    return tuple(records)


def member(known: Roster, name: str, at: int) -> SignedEntry:
    identity = SigningKey(name.encode().ljust(32, b"."))
    node = ec.derive_private_key(7000 + name.encode()[0], ec.SECP384R1())
    return roster.append(known, Event.JOIN, bind(name, identity, node, KEY.public), KEY, at)


FIRST = record(None, 0)
ADA = member(Roster.empty(CommunityKeys(KEY.public)), "ada", 1)
WITH_ADA = roster.extend(Roster.empty(CommunityKeys(KEY.public)), [ADA])
BACKUP = Recovered.nothing(Lineage(FIRST, sign_end(0, FIRST, KEY)), WITH_ADA)


def page(records: tuple[SignedVersion, ...], ended: int, key: SigningKey = KEY) -> LineagePage:
    return LineagePage(records, sign_end(ended, records[-1], key))


def holding(found: LineagePage, **changes: object) -> Holding:
    newest = found.records[-1]
    made = Holding(newest, found.ended, len(found.records), newest.version.adapter, None, None)
    return replace(made, **changes)  # type: ignore[arg-type]


def nowhere(_digest: bytes) -> bool:
    return False


def test_records_after_the_backup_are_asked_for_and_the_newest_adapter() -> None:
    three = page(chain(FIRST, [1, 2, 3]), 3)
    asked = BACKUP.wanted(holding(three), nowhere)
    assert asked.versions == 1
    after = BACKUP.with_lineage(three)
    assert after.newest == three.records[-1]
    asked = after.wanted(holding(three), nowhere)
    assert (asked.versions, asked.adapter) == (0, three.records[-1].version.adapter)
    older = holding(page(three.records[:2], 2))
    assert after.wanted(older, nowhere).adapter == three.records[1].version.adapter
    newer_is_here = {three.records[-1].version.adapter}.__contains__
    assert after.wanted(older, newer_is_here).nothing


def test_nothing_is_asked_of_who_holds_what_the_backup_holds_or_has_a_gap() -> None:
    same = Holding(FIRST, BACKUP.ended, 1, b"", ADA, None)
    assert BACKUP.wanted(same, nowhere).nothing
    assert BACKUP.wanted(Holding(None, None, 0, b"", None, None), nowhere).nothing
    three = page(chain(FIRST, [1, 2, 3]), 3)
    assert BACKUP.wanted(holding(three, kept=2), {b"x"}.__contains__).versions == 0


def test_a_round_that_ended_without_a_version_is_known_again() -> None:
    later = LineagePage((), sign_end(5, FIRST, KEY))
    told = Holding(FIRST, later.ended, 1, b"", None, None)
    assert BACKUP.wanted(told, nowhere).versions == 1
    assert BACKUP.with_lineage(later).ended.round == 5


@pytest.mark.parametrize("ended", [3, 9999])
def test_records_that_do_not_follow_from_the_backup_are_refused(ended: int) -> None:
    records = chain(FIRST, [1, 2, 3])
    forged = (*records[:2], record(records[1], 3, ANOTHER))
    elsewhere = chain(record(None, 0, tag=5), [1, 2, 3])
    for bad in (records[1:], (records[0], records[2]), forged, elsewhere):
        with pytest.raises(RemoteProtocolError):
            BACKUP.with_lineage(page(bad, ended))
    with pytest.raises(RemoteProtocolError, match="not signed"):
        BACKUP.with_lineage(page(records, ended, ANOTHER))
    with pytest.raises(RemoteProtocolError, match="another version"):
        BACKUP.with_lineage(LineagePage(records, sign_end(ended, records[1], KEY)))


def test_of_two_branches_that_of_the_later_round_wins_however_long_the_other_is() -> None:
    old = page(chain(FIRST, [1, 2, 3, 4]), 4)
    new = page(chain(FIRST, [10_001], tag=1), 10_001)
    for first, second in ((old, new), (new, old)):
        state = BACKUP.with_lineage(first).with_lineage(second)
        assert state.newest == new.records[-1]
    assert BACKUP.with_lineage(new).wanted(holding(old), nowhere).versions == 0


def test_an_older_state_of_the_same_chain_changes_nothing() -> None:
    records = chain(FIRST, [1, 2, 3])
    state = BACKUP.with_lineage(page(records, 3))
    assert state.with_lineage(page(records[:2], 2)) == state


def test_the_longest_roster_wins_and_a_shorter_one_is_not_asked_for() -> None:
    ben = member(WITH_ADA, "ben", 2)
    cy = member(roster.extend(WITH_ADA, [ben]), "cy", 3)
    told = Holding(None, None, 0, b"", cy, None)
    assert BACKUP.wanted(told, nowhere).entries == 1
    state = BACKUP.with_entries((ben, cy))
    assert list(state.roster.members) == ["ada", "ben", "cy"]
    assert state.wanted(replace(told, entry=ben), nowhere).nothing
    assert BACKUP.with_entries((ben,)).with_entries((ben, cy)).roster.length == 3
    assert state.with_entries((ben,)).roster == state.roster


def test_of_two_rosters_the_one_that_was_written_later_wins_and_is_asked_for_once() -> None:
    ben, dee = member(WITH_ADA, "ben", 2), member(WITH_ADA, "dee", 7)
    cy = member(roster.extend(WITH_ADA, [ben]), "cy", 3)
    for first, second in (((ben, cy), (dee,)), ((dee,), (ben, cy))):
        state = BACKUP.with_entries(first).with_entries(second)
        assert list(state.roster.members) == ["ada", "dee"]
    assert state.wanted(Holding(None, None, 0, b"", cy, None), nowhere).nothing


def test_entries_that_the_community_did_not_sign_are_refused() -> None:
    ben = member(WITH_ADA, "ben", 2)
    with pytest.raises(RemoteProtocolError, match="not signed"):
        BACKUP.with_entries((replace(ben, signature=bytes(64)),))
    with pytest.raises(RemoteProtocolError, match="no entries"):
        BACKUP.with_entries(())
    told = Holding(None, None, 0, b"", replace(ben, signature=bytes(64)), None)
    with pytest.raises(RemoteProtocolError, match="not signed"):
        recovery.check(told, CommunityKeys(KEY.public), "member")


def test_a_holding_of_a_record_that_its_round_end_does_not_name_is_refused() -> None:
    records = chain(FIRST, [1, 2])
    told = Holding(records[1], sign_end(2, records[0], KEY), 2, b"", None, None)
    with pytest.raises(RemoteProtocolError, match="another version"):
        recovery.check(told, CommunityKeys(KEY.public), "member")
