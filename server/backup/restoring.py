"""`nomoat restore`: a community from its backup, with the statement that its volunteers need."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import community_id
from nomoat.aggregation.protocol.history import restoration
from nomoat.aggregation.protocol.history.restoration import Restoration, Restorations
from nomoat.aggregation.protocol.round_end import sign_end
from nomoat.server.backup import archive
from nomoat.server.backup.archive import KEY_NAMES, BackupManifest
from nomoat.server.backup.sealing import unseal
from nomoat.server.community.folder import Folder
from nomoat.server.community.journal import brief
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import Provenance
from nomoat.server.rounds.records import RoundRecord
from nomoat.storage.atomic import replacing
from nomoat.storage.drafts import filling
from nomoat.storage.private import write_private

# Rounds may have ended since the backup was made, and volunteers enter none of their numbers again
# (protocol §19.2): the community goes on beyond any that there can have been.
ROUNDS_LEFT_OUT = 10_000
MOST_ROUNDS = 1_000_000


def restore(file: Path, root: Path, passphrase: str, now: int) -> BackupManifest:
    """Bring a community back into a folder that holds none; the folder is whole or not there.

    BadData or NomoatError if the backup is damaged or the passphrase is another.
    """
    with filling(root, Folder(root).settings.name) as draft:
        manifest, vouched, sealed = archive.read(file, draft)
        for name, content in unseal(sealed, passphrase, vouched).items():
            if not KEY_NAMES.fullmatch(name):
                raise BadData(f"{file} is no backup of a community: it brings {name}")
            (draft / name).parent.mkdir(mode=0o700, exist_ok=True)
            write_private(draft / name, content)
        community = OpenCommunity.open(draft)
        with contextlib.closing(community.registrar.database):
            if community_id(community.registrar.key.public).hex() != manifest.community:
                raise BadData(f"{file}: its key is of another community")
            community.versions.verify()
            community.registrar.roster()
            _say_restored(community, manifest, now)
    return manifest


def restorations(folder: Folder) -> Restorations:
    """Every time this community was restored; NomoatError if the file is damaged."""
    try:
        data = folder.restored.read_bytes()
    except FileNotFoundError:
        return Restorations(())
    return wire.decode(wire.Packet(data), Restorations, str(folder.restored))


def _say_restored(community: OpenCommunity, manifest: BackupManifest, now: int) -> None:
    """Add the version that says so to the chain, and the statement that names it."""
    versions, key = community.versions, community.registrar.key
    newest = versions.get(None)
    old = newest.version
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(manifest.at))
    note = f"the community was restored at version {old.number}, from a backup of {made}"
    measured = Provenance(
        old.round, old.method, old.contributors, old.loss, old.parent_loss, note, old.evaluation
    )
    last = versions.database.last_record()
    number = (0 if last is None else int(json.loads(last)["round"])) + ROUNDS_LEFT_OUT
    if number > MOST_ROUNDS:
        raise NomoatError("this community has no more numbers for rounds")
    before = restorations(community.folder).restorations
    roster = community.registrar.roster()
    with versions.database.transaction():
        record = versions.add(versions.load(newest), measured, now)
        versions.database.put_round(number, False, brief(RoundRecord(number, False, note)), b"")
    blank = Restoration(
        len(before) + 1,
        record,
        sign_end(number, record, key),
        roster.length,
        roster.head,
        now,
        bytes(64),
    )
    with replacing(community.folder.restored) as file:
        file.write(wire.encode(Restorations((*before, restoration.sign(blank, key)))).head)
