"""restoring.rec in a community's folder: it was restored, and its members have yet to be asked.

While it is there nothing is signed (docs/protocol.md §6.6): `Database.transaction` refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import UnixTime
from nomoat.aggregation.protocol.history.restoration import Restoration
from nomoat.aggregation.protocol.round_end import RoundEnd
from nomoat.server.community.folder import Folder
from nomoat.storage.atomic import replacing


@wire.message("recovery.begun")
@dataclass(frozen=True, slots=True)
class RestoreBegun:
    """A restore that has begun. version, entries: the backup's newest, and its roster's length.

    made: unix time of the backup. wait_s: how long members are waited for. stood: the backup's last
    RoundEnd. ended: those of what has come back, the last two, one of which the database is at.
    restored: the last Restoration that anybody has told of.
    """

    version: Annotated[int, wire.Limit(0, 1_000_000)]
    entries: Annotated[int, wire.Limit(0, 1_000_000)]
    made: UnixTime
    wait_s: Annotated[int, wire.Limit(0, 10_000_000)]
    stood: RoundEnd
    ended: Annotated[tuple[RoundEnd, ...], wire.Limit(0, 2)] = ()
    restored: Restoration | None = None


def read(folder: Folder) -> RestoreBegun | None:
    """Return the restore that has begun in a folder, if one has; NomoatError if it is damaged."""
    try:
        data = folder.restoring.read_bytes()
    except FileNotFoundError:
        return None
    return wire.decode(wire.Packet(data), RestoreBegun, str(folder.restoring))


def write(folder: Folder, begun: RestoreBegun) -> None:
    """Write down how far it has come."""
    with replacing(folder.restoring) as file:
        file.write(wire.encode(begun).head)
