"""keys.rec: every change of a community's key; and the key file that goes with the last one.

A change is in effect once keys.rec names it; whoever opens the folder after a kill puts the new key
in its place.
"""

from __future__ import annotations

import contextlib

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys, KeyChanges, opened
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.folder import Folder
from nomoat.storage.atomic import moving, replacing

PUT_BACK = "bring a backup back with nomoat restore"


def key_and_changes(folder: Folder) -> tuple[SigningKey, CommunityKeys]:
    """The key a community signs with now, and all it had; NomoatError if they do not agree."""
    changes = read(folder)
    if changes is None:
        key = folder.key()
        return key, CommunityKeys(key.public)
    key = _key(folder, changes.current)
    return key, changes


def check_unchanged(folder: Folder, keys: CommunityKeys) -> None:
    """Raise NomoatError if the key was changed since: what the old one signs now is worthless."""
    if (read(folder) or CommunityKeys(keys.founding)) != keys:
        raise NomoatError("the community's key has just been changed; do that once more")


def read(folder: Folder) -> CommunityKeys | None:
    """Read keys.rec, every change verified; None of a community that never changed its key."""
    try:
        told = wire.decode(wire.Packet(folder.keys.read_bytes()), KeyChanges, str(folder.keys))
        return opened(told, str(folder.keys))
    except FileNotFoundError:
        return None
    except RemoteProtocolError as problem:
        raise NomoatError(f"{folder.keys}: {problem.reason}; {PUT_BACK}") from None


def write(folder: Folder, keys: CommunityKeys) -> None:
    """Put further changes into effect, and the key that goes with the last in its place."""
    with replacing(folder.keys) as file:
        file.write(wire.encode(keys.message()).head)
    _key(folder, keys.current)


def _key(folder: Folder, current: bytes) -> SigningKey:
    """The key file's key, which is `current`: the next one takes its place if it is that one."""
    if folder.next_key.exists() and folder.key(folder.next_key).public == current:
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            moving(folder.next_key, folder.community_key)
    key = folder.key()
    if key.public != current:
        raise NomoatError(f"{folder.community_key} is not the key of {folder.keys}; {PUT_BACK}")
    return key
