"""A restored community as far as it has come back, and what is still wanted; pure (§6.6).

    state.wanted(holding, here)          # what of a member's Holding is better than what is here
    state.with_lineage(page)             # RemoteProtocolError if it does not follow from the backup
    state.with_entries(entries)

Every state is a whole: a chain of records from the backup's newest on, and a roster from the
backup's last entry on. A better chain takes the place of another; they are never mixed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import roster as log
from nomoat.aggregation.protocol.history.recovery import SECTION, Holding, WantedPieces
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.aggregation.protocol.roster import Roster, SignedEntry
from nomoat.aggregation.protocol.round_end import Lineage, LineagePage, RoundEnd, extend

PEER = "member"

Rank = tuple[int, int, bytes]


def rank(newest: SignedVersion, ended: RoundEnd) -> Rank:
    """The order of states that a community was in: by the round it came to, then by versions.

    Each restoration passes thousands of rounds over, so of two branches the later one is greater.
    """
    return ended.round, newest.version.number, newest.digest


@dataclass(frozen=True)
class Recovered:
    """A restored community as far as it has come back. base, base_roster: as the backup has them.

    records, entries: what has come back, from the first after those on. ended: of the newest
    record. seen: heads of rosters that were looked at and not taken.
    """

    base: Lineage
    base_roster: Roster
    records: tuple[SignedVersion, ...]
    ended: RoundEnd
    entries: tuple[SignedEntry, ...]
    roster: Roster
    seen: frozenset[bytes] = frozenset()

    @classmethod
    def nothing(cls, base: Lineage, roster: Roster) -> Recovered:
        """The state in which nothing has come back."""
        return cls(base, roster, (), base.ended, (), roster)

    @property
    def newest(self) -> SignedVersion:
        """The newest record there is."""
        return self.records[-1] if self.records else self.base.record

    @property
    def rank(self) -> Rank:
        """The order of this state's chain among all."""
        return rank(self.newest, self.ended)

    def wanted(self, holding: Holding, here: Callable[[bytes], bool]) -> WantedPieces:
        """Return what of a checked Holding is lacking. here: True of an adapter that is here."""
        return WantedPieces(
            self._wanted_from(holding), self._entries_from(holding), self._adapter(holding, here)
        )

    def with_lineage(self, page: LineagePage) -> Recovered:
        """Return the state with a later chain in the place of the one here; itself if it is none.

        RemoteProtocolError if it does not follow from the backup.
        """
        newest = page.records[-1] if page.records else self.base.record
        if rank(newest, page.ended) <= self.rank:
            return self
        found = extend(self.base, page, self.base_roster.keys)
        return replace(self, records=page.records, ended=found.ended)

    def with_entries(self, entries: tuple[SignedEntry, ...]) -> Recovered:
        """Return the state with a roster that continues the one here, or a later one in its place.

        Itself but for `seen` if the roster here is the later one. RemoteProtocolError if what came
        does not continue the backup's.
        """
        found = log.extend(self.base_roster, entries)
        if found.length == self.base_roster.length:
            raise RemoteProtocolError(PEER, SECTION, "sends no entries")
        if entries[: len(self.entries)] != self.entries and not self._later(entries[-1]):
            return replace(self, seen=self.seen | {found.head})
        if found.length <= self.roster.length and entries == self.entries[: len(entries)]:
            return replace(self, seen=self.seen | {found.head})
        return replace(self, entries=entries, roster=found)

    def _wanted_from(self, holding: Holding) -> int:
        base, newest, ended = self.base.record, holding.newest, holding.ended
        if newest is None or ended is None or rank(newest, ended) <= self.rank:
            return 0
        ahead = newest.version.number - base.version.number
        follows = newest == base if ahead <= 0 else ahead <= holding.kept
        return base.version.number + 1 if follows else 0

    def _entries_from(self, holding: Holding) -> int:
        entry = holding.entry
        if entry is None or log.digest(entry.entry) in self.seen | {self.roster.head}:
            return -1
        lacking = entry.entry.index + 1 - self.base_roster.length
        longer = entry.entry.index >= self.roster.length
        if not 0 < lacking <= log.PAGE or not (longer or self._later(entry)):
            return -1
        return self.base_roster.length

    def _later(self, entry: SignedEntry) -> bool:
        return not self.entries or entry.entry.at > self.entries[-1].entry.at

    def _adapter(self, holding: Holding, here: Callable[[bytes], bool]) -> bytes:
        """Return the digest that the member holds of a newer version than the newest one here."""
        for record in reversed((self.base.record, *self.records)):
            adapter = record.version.adapter
            if here(adapter):
                return b""
            if adapter == holding.adapter:
                return adapter
        return b""
