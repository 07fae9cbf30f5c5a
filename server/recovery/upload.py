"""An adapter's file on its way back: from one member at a time, believed when it is whole."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import lineage
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.history.recovery import PART_BYTES, SECTION

SILENT_S = 30.0  # then another one is asked


@dataclass
class Upload:
    """One member's file as it comes, in `path`. at: monotonic time of its last part."""

    digest: bytes
    member: bytes
    path: Path
    most_bytes: int
    at: float
    size: int = 0

    def __post_init__(self) -> None:
        """Begin with an empty file: what another sent is not believed."""
        self.path.write_bytes(b"")

    def is_of(self, member: bytes, digest: bytes) -> bool:
        """Return True if this is that member's upload of that adapter."""
        return (self.member, self.digest) == (member, digest)

    def silent(self, now: float) -> bool:
        """Return True if nothing has come for long."""
        return now - self.at > SILENT_S

    def take(self, after: int, part: bytes, now: float) -> Adapter | None:
        """Keep the next part; the adapter after the last one, which is shorter than the others.

        RemoteProtocolError if it is out of its place, too long, or the whole is something else.
        """
        if after != self.size or len(part) > PART_BYTES:
            raise RemoteProtocolError("member", SECTION, "sends a part that is not the next one")
        if self.size + len(part) > self.most_bytes:
            raise RemoteProtocolError("member", SECTION, "sends more than an adapter has")
        with self.path.open("ab") as file:
            file.write(part)
        self.size, self.at = self.size + len(part), now
        if len(part) == PART_BYTES:
            return None
        return lineage.from_file(self.path.read_bytes(), self.digest, "member")

    def drop(self) -> None:
        """Delete what has come."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
