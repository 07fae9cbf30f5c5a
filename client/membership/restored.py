"""A community that was restored from a backup, as a volunteer meets it (docs/protocol.md §6.5).

What this machine has verified is more than what the community holds now, so each of its records is
refused as rewritten, until the owner has said that the backup is to be believed. Then what is known
here is set back to what the statement names; marks of what left this machine stay as they are.

    restored.rec     the statement that the owner accepted last
"""

from __future__ import annotations

import time
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol import roster, wire
from nomoat.aggregation.protocol.history.restoration import SECTION, Restoration
from nomoat.aggregation.protocol.round_end import LineagePage
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import pinned_lineage
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.sent.log_file import SentLog
from nomoat.storage.private import write_private

FILE = "restored.rec"
OTHERS = ("its versions of the adapter, which were others",)


def accepted(folder: Path) -> Restoration | None:
    """The statement that the owner accepted last."""
    try:
        data = (folder / FILE).read_bytes()
        return wire.decode(wire.Packet(data), Restoration, str(folder / FILE))
    except (OSError, RemoteProtocolError):
        return None


def waiting(folder: CommunityFolder, coordinator: CoordinatorClient) -> Restoration | None:
    """The community's last statement, if the owner has yet to accept it; None if nothing waits."""
    found = _untold(folder, coordinator)
    if found is None:
        return None
    return found if given_up(folder, found) or _contradicted(folder, coordinator) else None


def acknowledge(folder: CommunityFolder, coordinator: CoordinatorClient) -> Restoration | None:
    """Take a statement beyond which nothing was seen here, without asking anybody.

    None if there is none. What is known here must be up to date: then the statement is part of it.
    """
    found = _untold(folder, coordinator)
    if found is None or given_up(folder, found):
        return None
    write_private(folder.root / FILE, wire.encode(found).head)
    return found


def _untold(folder: CommunityFolder, coordinator: CoordinatorClient) -> Restoration | None:
    """Return the community's last statement, unless it is the one accepted last, or an older one.

    A backup that is put back twice may give two statements of one index.
    """
    found = coordinator_api.restorations(coordinator, int(time.time()))
    before = accepted(folder.root)
    if not found or found[-1] == before:
        return None
    last = found[-1]
    if before is not None and last.index <= before.index and last.at <= before.at:
        return None
    return last


def _contradicted(folder: CommunityFolder, coordinator: CoordinatorClient) -> bool:
    """Return True if the community's versions are none that continue those verified here."""
    try:
        known = pinned_lineage.read(folder.root)
        coordinator_api.lineage_since(coordinator, known, int(time.time()))
    except RemoteProtocolError:
        return True
    return False


def given_up(folder: CommunityFolder, found: Restoration) -> list[str]:
    """Name what this machine has seen beyond the statement, one thing a line; empty if nothing."""
    seen, stands = pinned_lineage.read(folder.root), found.version.version.number
    lost = []
    if seen is not None:
        number = seen.record.version.number
        if number > stands or (number == stands and seen.record != found.version):
            lost.append(f"version {number} of the adapter, where version {stands} stands now")
    beyond = len(RosterFile(folder.root).entries()) - found.roster_length
    if beyond > 0:
        lost.append(f"{beyond} entries of its roster: whoever joined, left or was banned since")
    return lost


def question(folder: CommunityFolder, found: Restoration) -> str:
    """The statement in words, for the owner who is to accept it."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.at))
    lines = [
        f"{folder.name()} says under its key, on {when}: {found.version.version.note}.",
        *(f"This machine would forget {each}." for each in given_up(folder, found) or OTHERS),
        "Accept it only if its coordinator has told you of it in another way, too.",
    ]
    return "\n".join(lines)


def accept(folder: CommunityFolder, found: Restoration) -> None:
    """Set what is known here back to the statement.

    RemoteProtocolError if its roster is none that this machine has seen.
    """
    file = RosterFile(folder.root)
    entries = file.entries()
    if 0 < found.roster_length <= len(entries):
        head = roster.digest(entries[found.roster_length - 1].entry)
        if head != found.roster_head:
            reason = "the roster it was restored with is none that this machine has seen"
            raise RemoteProtocolError(COORDINATOR, SECTION, reason)
    file.keep_first(found.roster_length)
    page = wire.encode(LineagePage((found.version,), found.ended)).head
    write_private(folder.root / pinned_lineage.FILE, page)
    folder.save_version(found.version)
    write_private(folder.root / FILE, wire.encode(found).head)  # last: after a kill, once more


def hand_back(folder: CommunityFolder, coordinator: CoordinatorClient) -> int:
    """Give the community the receipts of ours that it has lost; how many there were."""
    now = int(time.time())
    ours = SentLog(folder.root).signed_receipts()
    known = {signed.receipt.packet for signed in coordinator_api.receipts(coordinator, 0, now)}
    lost = [signed for signed in ours if signed.receipt.packet not in known]
    coordinator_api.return_receipts(coordinator, lost, now)
    return len(lost)


def advice(folder: CommunityFolder, coordinator: CoordinatorClient, problem: NomoatError) -> str:
    """The sentence for the owner: that a backup was put back, or else `problem` itself."""
    try:
        found = waiting(folder, coordinator)
    except NomoatError:
        found = None
    if found is None:
        return str(problem)
    return (
        f"{found.version.version.note}; this machine has seen more. If its coordinator tells you "
        "so, too: nomoat accept-restore. Until then nothing is trained here"
    )
