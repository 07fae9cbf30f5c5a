"""`nomoat restore`: a community from its backup, with the statement that its volunteers need."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from pathlib import Path

from nomoat.aggregation.errors import BadData, NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.history import restoration
from nomoat.aggregation.protocol.history.restoration import Restoration, Restorations
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.round_end import sign_end
from nomoat.server.backup import archive
from nomoat.server.backup.archive import KEY_NAMES, BackupManifest
from nomoat.server.backup.begun import RestoreBegun, write
from nomoat.server.backup.sealing import unseal
from nomoat.server.community.folder import Folder
from nomoat.server.community.journal import brief
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import BEYOND, Provenance, is_whole
from nomoat.server.rounds.records import RoundRecord
from nomoat.storage.atomic import replacing
from nomoat.storage.drafts import filling
from nomoat.storage.private import write_private

# Rounds may have ended since the backup was made, and volunteers enter none of their numbers again
# (protocol §19.2): the community goes on beyond any that there can have been.
ROUNDS_LEFT_OUT = 10_000
MOST_ROUNDS = 1_000_000


def restore(
    file: Path,
    root: Path,
    passphrase: str,
    now: int,
    wait_s: int = 0,
    database: str | None = None,
) -> BackupManifest:
    """Bring a community back into a folder that holds none; the folder is whole or not there.

    wait_s: how long its members are asked for what they still hold, once it is up; 0: not at all,
    and rounds go on from the backup. database: PostgreSQL's URL, if its records are to be there.
    BadData or NomoatError if the backup is damaged or the
    passphrase is another.
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
            if community.registrar.keys.id.hex() != manifest.community:
                raise BadData(f"{file}: its key is of another community")
            community.versions.verify()
            community.registrar.roster()
            begun = _begun(community, manifest.at, wait_s)
            write(community.folder, begun)
            if not wait_s:
                finish(community, begun, now)
        founding, at = community.registrar.keys.founding, datetime.datetime.now(datetime.UTC)
        Folder(draft).send_records(database, founding, os.urandom(8).hex(), at)
    return manifest


def restorations(folder: Folder) -> Restorations:
    """Every time this community was restored; NomoatError if the file is damaged."""
    try:
        data = folder.restored.read_bytes()
    except FileNotFoundError:
        return Restorations(())
    return wire.decode(wire.Packet(data), Restorations, str(folder.restored))


def finish(community: OpenCommunity, begun: RestoreBegun, now: int) -> None:
    """Say under the community's key what stands after a restore, and let it go on.

    After a kill in the middle it is done again to the same end.
    """
    versions, database, folder = community.versions, community.registrar.database, community.folder
    database.closed = ""
    if not said(community, begun):
        number = _next_number(community, begun)
        standing = _standing(community)
        note = _note(begun, versions.get(None).version.number)
        old = standing.version
        measured = Provenance(
            versions.get(None).version.round, old.method, old.contributors, old.loss,
            old.parent_loss, note, old.evaluation, old.noise,
        )  # fmt: skip
        with database.transaction():
            versions.add(versions.load(standing), measured, now)
            database.put_round(number, False, brief(RoundRecord(number, False, note)), b"")
            database.run("DELETE FROM ordered_rollback")  # it was of another state
    _state(community, begun, now)
    folder.restoring.unlink(missing_ok=True)


def said(community: OpenCommunity, begun: RestoreBegun) -> bool:
    """Return True if the version that says so is in the chain already."""
    newest = community.versions.get(None).version
    last = community.registrar.database.last_record()
    reason = "" if last is None else json.loads(last)["reason"]
    return newest.number > begun.version and newest.note == reason != ""


def _begun(community: OpenCommunity, made: int, wait_s: int) -> RestoreBegun:
    """Describe what the backup holds. Its RoundEnd is the one it had signed, byte for byte."""
    page = community.versions.lineage(BEYOND)
    newest = community.versions.get(None).version.number
    return RestoreBegun(newest, community.registrar.roster().length, made, wait_s, page.ended)


def _next_number(community: OpenCommunity, begun: RestoreBegun) -> int:
    """Return the number of a round beyond all that anybody has told of."""
    last = community.registrar.database.last_record()
    known = [0 if last is None else int(json.loads(last)["round"])]
    known += [ended.round for ended in (begun.stood, *begun.ended)]
    if begun.restored is not None:
        known.append(begun.restored.ended.round)
    number = max(known) + ROUNDS_LEFT_OUT
    if number > MOST_ROUNDS:
        raise NomoatError("this community has no more numbers for rounds")
    return number


def _standing(community: OpenCommunity) -> SignedVersion:
    """Return the newest version whose adapter is here."""
    versions = community.versions
    for record in reversed(versions.database.versions()):
        if is_whole(versions.path(record.version.adapter), record.version.adapter):
            return record
    raise NomoatError(f"{community.folder.adapters} holds no version's adapter")


def _note(begun: RestoreBegun, newest: int) -> str:
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(begun.made))
    came = f"; {begun.version + 1} to {newest} came back from members"
    return (
        f"the community was restored at version {newest}, from a backup of {made}"
        f"{came if newest > begun.version else ''}"
    )


def _state(community: OpenCommunity, begun: RestoreBegun, now: int) -> None:
    """Write the signed statement that volunteers are told, unless it is written."""
    key, record = community.registrar.key, community.versions.get(None)
    before = restorations(community.folder).restorations
    if before and before[-1].version == record:
        return
    if begun.restored is not None and begun.restored.index > len(before):
        before = (*before, begun.restored)
    last = community.registrar.database.last_record()
    assert last is not None
    roster = community.registrar.roster()
    blank = Restoration(
        before[-1].index + 1 if before else 1,
        record,
        sign_end(int(json.loads(last)["round"]), record, key),
        roster.length,
        roster.head,
        now,
        bytes(64),
    )
    with replacing(community.folder.restored) as file:
        file.write(wire.encode(Restorations((*before, restoration.sign(blank, key)))).head)
