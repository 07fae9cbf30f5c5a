"""The roster on disk survives crashes, and its dates are this machine's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol.enrolment import bind
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.receipts import Receipt
from nomoat.aggregation.protocol.roster import Event, Roster, SignedEntry, append, extend
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.membership.receipted_log import receipts_of_log
from nomoat.client.membership.roster_file import RosterFile, Sighting, joined_at, long_known

KEYS = [SigningKey(bytes([i + 1]) * 32) for i in range(4)]
NODE_KEYS = [ec.derive_private_key(3000 + i, ec.SECP384R1()) for i in range(4)]
NOW = 1_800_000_000.0


def log(count: int) -> tuple[Roster, list[SignedEntry]]:
    roster, entries = Roster.empty(CommunityKeys(KEYS[0].public)), []
    for number in range(count):
        who = bind(f"vol{number}", KEYS[number], NODE_KEYS[number], KEYS[0].public)
        entries.append(append(roster, Event.JOIN, who, KEYS[0], number))
        roster = extend(roster, entries[-1:])
    return roster, entries


def read(file: RosterFile) -> Roster:
    return extend(Roster.empty(CommunityKeys(KEYS[0].public)), file.entries())


def known(file: RosterFile, before: float) -> list[int]:
    found = long_known(file.entries(), file.sightings(), before)
    return [number for number, key in enumerate(KEYS) if key.public in found]


def test_a_roster_survives_a_restart_and_half_a_write(tmp_path: Path) -> None:
    file = RosterFile(tmp_path)
    roster, entries = log(4)
    file.append(entries[:2], NOW)
    file.append(entries[2:3], NOW)
    path = tmp_path / "roster.log"
    path.write_bytes(path.read_bytes()[:-5])  # the machine died in the last write
    assert read(file).length == 2
    file.append(entries[2:], NOW)
    assert read(file) == roster


def test_a_roster_altered_on_disk_is_noticed(tmp_path: Path) -> None:
    file = RosterFile(tmp_path)
    file.append(log(3)[1], NOW)
    path = tmp_path / "roster.log"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RemoteProtocolError):
        read(file)


def test_peers_are_known_since_this_machine_saw_them_whatever_the_coordinator_dates_them(
    tmp_path: Path,
) -> None:
    file = RosterFile(tmp_path)
    entries = log(4)[1]
    assert all(signed.entry.at < 10 for signed in entries)  # decades ago, says the coordinator
    file.append(entries[:1], NOW)
    file.append(entries[1:3], NOW + 100)
    file.append(entries[3:], NOW + 200)
    assert known(file, NOW - 1) == []
    assert known(file, NOW) == [0]
    assert known(RosterFile(tmp_path), NOW + 150) == [0, 1, 2]  # and after a restart
    assert known(file, NOW + 200) == [0, 1, 2, 3]


def test_a_roster_of_an_older_release_counts_from_its_last_write(tmp_path: Path) -> None:
    file = RosterFile(tmp_path)
    entries = log(3)[1]
    file.append(entries[:2], NOW + 500)
    (tmp_path / "roster.seen").unlink()
    os.utime(tmp_path / "roster.log", (NOW, NOW))
    assert known(file, NOW - 1) == []
    assert known(file, NOW) == [0, 1]
    file.append(entries[2:], NOW + 900)  # and goes on counting from then
    assert known(file, NOW) == [0, 1]
    assert known(file, NOW + 900) == [0, 1, 2]


def test_a_roster_fetched_anew_is_not_old_because_another_was(tmp_path: Path) -> None:
    """Whoever lost the log may be shown another history: its entries are as new as they look."""
    file = RosterFile(tmp_path)
    entries = log(4)[1]
    file.append(entries[:3], NOW)
    (tmp_path / "roster.log").unlink()
    file.append(entries, NOW + 900)
    assert known(file, NOW + 800) == []
    assert file.sightings() == (Sighting(4, NOW + 900),)


def test_damaged_dates_are_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    file = RosterFile(tmp_path)
    file.append(log(2)[1], NOW)
    (tmp_path / "roster.seen").write_text("{}\n")
    with pytest.raises(NomoatError, match="damaged; delete it"):
        file.sightings()


def test_a_volunteer_put_out_and_taken_back_is_as_old_as_before(tmp_path: Path) -> None:
    roster, entries = log(2)
    member = roster.members["vol1"].binding
    for event in (Event.HOLD, Event.RELEASE):
        entries.append(append(roster, event, member, KEYS[0], 5))
        roster = extend(roster, entries[-1:])
    seen = [Sighting(2, NOW), Sighting(4, NOW + 100)]
    assert KEYS[1].public in long_known(entries, seen, NOW)


def test_the_community_says_when_somebody_joined_last_by_its_own_clock(tmp_path: Path) -> None:
    roster, entries = log(3)
    assert joined_at(entries, KEYS[2].public) == 2.0
    assert joined_at(entries, KEYS[3].public) is None
    left = append(roster, Event.LEAVE, entries[1].entry.binding, KEYS[0], 5)
    roster = extend(roster, [left])
    again = append(roster, Event.JOIN, entries[1].entry.binding, KEYS[0], 9)
    assert joined_at([*entries, left, again], KEYS[1].public) == 9.0


def test_a_receipt_of_the_second_in_which_a_member_came_back_is_of_its_former_log(
    tmp_path: Path,
) -> None:
    RosterFile(tmp_path).append(log(3)[1], NOW)  # KEYS[2] joined at 2
    member = KEYS[2].public
    given = [Receipt(KEYS[0].public, member, n, bytes([n]) * 32, 1, n) for n in (1, 2, 3)]
    assert receipts_of_log(tmp_path, [], given, member) == given[2:]
