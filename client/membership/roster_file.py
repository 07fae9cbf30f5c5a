"""The roster on this machine's disk: its entries, and when each of them was first seen here.

roster.log holds the entries, each after 4 bytes of length. roster.seen holds a line of JSON for
every time that entries came: `length` entries were here at `at`, seconds since 1970 by this
machine's clock. What the coordinator says of dates counts for nothing: it could invent volunteers
and call them old.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.roster import Event, SignedEntry
from nomoat.storage.atomic import appending, replacing

LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Sighting:
    """`length` entries of the roster were on this machine at `at`, seconds since 1970."""

    length: int
    at: float


def long_known(
    entries: Sequence[SignedEntry], sightings: Iterable[Sighting], before: float
) -> frozenset[bytes]:
    """The identities whose joining this machine had seen at `before`, seconds since 1970.

    They are `Terms.known` (docs/protocol.md §11.4), whatever became of them since: who is no member
    any more is in no session.
    """
    length = max((seen.length for seen in sightings if seen.at <= before), default=0)
    joins = (signed.entry for signed in entries[:length] if signed.entry.event == Event.JOIN)
    return frozenset(entry.identity for entry in joins)


def joined_at(entries: Sequence[SignedEntry], identity: bytes) -> float | None:
    """Return when the community says that somebody joined last; None if it does not say."""
    joins = (signed.entry for signed in entries if signed.entry.event == Event.JOIN)
    return max((float(entry.at) for entry in joins if entry.identity == identity), default=None)


@dataclass(frozen=True)
class RosterFile:
    """roster.log and roster.seen in the folder of one community."""

    folder: Path

    def entries(self) -> list[SignedEntry]:
        """The entries, decoded; the signatures are checked by whoever extends a roster by them."""
        return self._read()[0]

    def append(self, entries: Iterable[SignedEntry], now: float) -> None:
        """Keep further entries, first seen at `now`; NomoatError if they cannot be written."""
        before, whole = self._read()
        sightings = self.sightings()
        added = [wire.encode(entry).head for entry in entries]
        with appending(self._log, keep=whole) as file:  # a crash may have left half an entry
            for head in added:
                file.write(len(head).to_bytes(LENGTH_BYTES, "big") + head)
        self._write((*sightings, Sighting(len(before) + len(added), now)))

    def keep_first(self, length: int) -> None:
        """Forget the entries after the first `length`; the times of the others stay."""
        sightings = self.sightings()
        kept = [wire.encode(entry).head for entry in self.entries()[:length]]
        with replacing(self._log) as file:
            file.writelines(len(head).to_bytes(LENGTH_BYTES, "big") + head for head in kept)
        times = [seen for seen in sightings if seen.length <= len(kept)]
        later = next((seen.at for seen in sightings if seen.length > len(kept)), None)
        if later is not None and kept and (not times or times[-1].length < len(kept)):
            times.append(Sighting(len(kept), later))
        self._write(times)

    def sightings(self) -> tuple[Sighting, ...]:
        """Every time that entries came, oldest first; together they cover the entries there are.

        Entries without a sighting of their own (of a release that noted none, or of a process that
        was killed between the two files) were seen when roster.log was last written, at the latest.
        """
        length = len(self.entries())
        found = tuple(seen for seen in self._noted() if seen.length <= length)
        if length > (found[-1].length if found else 0):
            return (*found, Sighting(length, self._log.stat().st_mtime))
        return found

    def _noted(self) -> tuple[Sighting, ...]:
        if not self._seen.exists():
            return ()
        try:
            rows = map(json.loads, self._seen.read_text().splitlines())
            return tuple(Sighting(int(row["length"]), float(row["at"])) for row in rows)
        except (ValueError, KeyError, TypeError):
            raise NomoatError(
                f"{self._seen} is damaged; delete it, and peers count as known from now on"
            ) from None

    def _write(self, sightings: Iterable[Sighting]) -> None:
        with replacing(self._seen) as file:
            file.writelines(json.dumps(asdict(seen)).encode() + b"\n" for seen in sightings)

    def _read(self) -> tuple[list[SignedEntry], int]:
        """The whole entries in the log, and how many bytes they take."""
        data = self._log.read_bytes() if self._log.exists() else b""
        entries, at = [], 0
        while at + LENGTH_BYTES <= len(data):
            end = at + LENGTH_BYTES + int.from_bytes(data[at : at + LENGTH_BYTES], "big")
            if end > len(data):
                break
            packet = wire.Packet(data[at + LENGTH_BYTES : end])
            entries.append(wire.decode(packet, SignedEntry, str(self._log)))
            at = end
        return entries, at

    @property
    def _log(self) -> Path:
        return self.folder / "roster.log"

    @property
    def _seen(self) -> Path:
        return self.folder / "roster.seen"
