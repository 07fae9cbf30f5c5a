"""Changing a community's key: asked for at any time, done between two rounds."""

from __future__ import annotations

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.history.key_changes import MOST, CommunityKeys, KeyChange, sign
from nomoat.aggregation.protocol.signing import SIGNATURE_BYTES
from nomoat.server.community.folder import Folder
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import BEYOND
from nomoat.server.succession import kept_keys
from nomoat.storage.private import create_private


def ask(folder: Folder, seed: bytes) -> None:
    """Make the next key, which waits for `rotate`. seed: 32 fresh random bytes.

    One that waits already stays: it is the one that is asked for.
    """
    if not folder.next_key.exists():
        create_private(folder.next_key, seed.hex().encode() + b"\n")


def is_asked(folder: Folder) -> bool:
    """Return True if a next key waits."""
    return folder.next_key.exists()


def rotate(community: OpenCommunity, now: int) -> CommunityKeys:
    """Have the next key take the place of the present one: signed by both, in effect at once.

    No round may be under way, and `community` is of no use afterwards: open it again. UsageError
    if it has had as many keys as there may be.
    """
    folder, registrar, versions = community.folder, community.registrar, community.versions
    old, new, keys = registrar.key, folder.key(folder.next_key), registrar.keys
    if len(keys.changes) >= MOST:
        raise UsageError(f"a community changes its key {MOST} times at most")
    with registrar.database.transaction():  # nobody signs anything meanwhile
        registrar.check_unchanged()
        roster, page = registrar.roster(), versions.lineage(BEYOND)
        newest = versions.get(None)
        credited = (signed.receipt.round for signed in registrar.database.all_receipts())
        blank = KeyChange(
            index=len(keys.changes) + 1,
            previous=keys.changes[-1].digest if keys.changes else keys.id,
            old=old.public,
            new=new.public,
            roster_length=roster.length,
            roster_head=roster.head,
            version=newest.version.number,
            record=newest.digest,
            round=max(page.ended.round, max(credited, default=0)),
            at=now,
            by_old=bytes(SIGNATURE_BYTES),
            by_new=bytes(SIGNATURE_BYTES),
        )
        after = keys.followed_by(sign(blank, keys, old, new), str(folder.keys))
        kept_keys.write(folder, after)
    return after
