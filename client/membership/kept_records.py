"""The community's latest signed records, without a gap up to the newest this machine has verified.

They are what a community that lost its disk cannot make again (docs/protocol.md §6.6).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.lineage import PAGE, SignedVersion, Versions
from nomoat.storage.private import write_private

FILE: Final = "records.rec"
MOST_BYTES: Final = 3 << 20  # with a round's end beside them, a message


def read(folder: Path, newest: SignedVersion) -> tuple[SignedVersion, ...]:
    """Return the records that lead to `newest` without a gap, oldest first, and it."""
    path = folder / FILE
    try:
        found = wire.decode(wire.Packet(path.read_bytes()), Versions, str(path)).records
    except (OSError, RemoteProtocolError):
        found = ()
    by_name = {record.digest: record for record in found}
    leading = [newest]
    while len(leading) < PAGE and (before := by_name.get(leading[-1].version.parent)) is not None:
        leading.append(before)
    return tuple(reversed(leading))


def note(folder: Path, before: SignedVersion | None, added: Sequence[SignedVersion]) -> None:
    """Keep records that follow `before`; the oldest go when there are too many."""
    kept = () if before is None else read(folder, before)
    records = (*kept, *added)[-PAGE:]
    while len(data := wire.encode(Versions(records)).head) > MOST_BYTES and len(records) > 1:
        records = records[len(records) // 2 :]
    write_private(folder / FILE, data)
