"""The doctor says which file cannot be made again, with the command that mends it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from builders import community_info
from nomoat.aggregation.privacy.accounting import noise_multiplier
from nomoat.aggregation.protocol import roster, wire
from nomoat.aggregation.protocol.enrolment import bind
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.lineage import Version, VersionNoise, sign
from nomoat.aggregation.protocol.receipts import Receipt, issue
from nomoat.aggregation.protocol.roster import Event, Roster
from nomoat.aggregation.protocol.round_end import LineagePage, sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.diary import Mark
from nomoat.client.doctor.kept_files import damage
from nomoat.client.doctor.own_records import broken_promises
from nomoat.client.home import CommunityFolder
from nomoat.client.identity.keys import node_key
from nomoat.client.membership import agreement
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log_file import SentLog

COMMUNITY, ADA = SigningKey(b"c" * 32), SigningKey(b"a" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> CommunityFolder:
    made = CommunityFolder(tmp_path / "town")
    made.save_info(community_info(public=COMMUNITY.public))
    node_key(made.node_key)
    DiskUpdateStore(made.held).begin()
    joining = bind("ada", ADA, ec.derive_private_key(7, ec.SECP384R1()), COMMUNITY.public)
    entry = roster.append(
        Roster.empty(CommunityKeys(COMMUNITY.public)), Event.JOIN, joining, COMMUNITY, 1
    )
    RosterFile(made.root).append([entry], 5.0)
    return made


def test_a_whole_folder_has_no_symptom(folder: CommunityFolder) -> None:
    assert damage(folder) is None


@pytest.mark.parametrize(
    ("file", "content", "said", "mend"),
    [
        ("community.info", b"", "community.info", "nomoat join"),
        ("node.key", None, "no member any more", "nomoat join"),
        ("node.key", b"garbage", "node", "nomoat join"),
        ("roster.seen", b"{", "roster.seen is damaged", "rm "),
        ("held/marks.jsonl", b"", "sits out", None),
    ],
)
def test_each_lost_or_damaged_file_is_named(
    folder: CommunityFolder, file: str, content: bytes | None, said: str, mend: str | None
) -> None:
    path = folder.root / file
    path.unlink() if content is None else path.write_bytes(content)
    found = damage(folder)
    assert found is not None
    assert said in found[0]
    assert (found[1] is None) if mend is None else (mend in (found[1] or ""))


def test_a_flipped_bit_in_the_roster_is_noticed(folder: CommunityFolder) -> None:
    path = folder.root / "roster.log"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    found = damage(folder)
    assert found is not None
    assert found[1] == f"rm {path}"


def test_an_update_that_left_for_two_sums_and_a_receipt_for_nothing_are_broken_promises(
    folder: CommunityFolder,
) -> None:
    assert list(broken_promises(folder, ADA.public)) == []
    masked = Mark("masked", b"s" * 32, 3, 1)
    DiskUpdateStore(folder.held).mark((masked, Mark("masked", b"t" * 32, 3, 2)))
    assert list(broken_promises(folder, ADA.public)) == []
    DiskUpdateStore(folder.held).mark((masked,))
    receipt = Receipt(COMMUNITY.public, ADA.public, 3, b"p" * 32, 9, 9)
    SentLog(folder.root).keep(issue(receipt, COMMUNITY))
    first, second = broken_promises(folder, ADA.public)
    assert "round 3 is for a packet that the log does not hold" in first
    assert "round 3 left 2 times in exchange 1" in second


def test_a_version_with_less_noise_than_was_agreed_to_is_a_broken_promise(
    folder: CommunityFolder,
) -> None:
    noise = VersionNoise(noise_multiplier(8.0, 1e-6, 10), 8.0, 1e-6, 10)
    about = (b"p" * 32, b"a" * 32, b"b" * 32, 4, "fedavg", ("ada",), 2.0, 2.1, None, "", 9)
    record = sign(Version(1, *about, noise), COMMUNITY)
    page = LineagePage((record,), sign_end(4, record, COMMUNITY))
    (folder.root / "lineage.rec").write_bytes(wire.encode(page).head)
    agreed = agreement.load(folder.root, folder.info())
    agreement.save(folder.root, replace(agreed, noise_multiplier=noise.noise_multiplier))
    assert list(broken_promises(folder, ADA.public)) == []
    agreement.save(folder.root, replace(agreed, noise_multiplier=2 * noise.noise_multiplier))
    (fault,) = broken_promises(folder, ADA.public)
    assert "less than" in fault
