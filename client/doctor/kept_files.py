"""Files of a community that this machine cannot make again by itself, read for the doctor.

What can be made again (rows, the newest version, an update that waits) is, when a volunteer starts;
it is no symptom.
"""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import roster
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.client.home import CommunityFolder
from nomoat.client.identity.keys import node_key
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.round.update_store import DiskUpdateStore

REJOIN = "nomoat leave && nomoat join LINK  # a new invitation"


def damage(folder: CommunityFolder) -> tuple[str, str | None] | None:
    """(fault, the command that mends it if one does) of the first bad file; None if all is well."""
    try:
        folder.info()
    except NomoatError as problem:
        return f"{folder.root / 'community.info'} cannot be read: {problem}", REJOIN
    try:
        keys = folder.keys()
    except NomoatError as problem:
        return f"the keys of the community cannot be read: {problem}", REJOIN
    if not folder.node_key.is_file():
        return f"{folder.node_key} is gone: this machine is no member any more", REJOIN
    try:
        node_key(folder.node_key)
    except NomoatError as problem:
        return str(problem), REJOIN
    return _roster(folder.root, keys) or _marks(folder)


def _roster(root: Path, keys: CommunityKeys) -> tuple[str, str | None] | None:
    file, log, seen = RosterFile(root), root / "roster.log", root / "roster.seen"
    try:
        roster.extend(roster.Roster.empty(keys), file.entries())
    except NomoatError as problem:
        text = (
            f"{log} is damaged ({problem}); without it, the coordinator is believed about who is in"
        )
        return text, f"rm {log}"
    try:
        file.sightings()
    except NomoatError:
        return f"{seen} is damaged; without it, peers count as known from now on", f"rm {seen}"
    return None


def _marks(folder: CommunityFolder) -> tuple[str, str | None] | None:
    if any(mark.kind == "lost" for mark in DiskUpdateStore(folder.held).marks()[:1]):
        return "the diary of sums was lost: this machine sits out until a later round", None
    return None
