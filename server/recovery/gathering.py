"""Members of a restored community are heard, one request after the other (docs/protocol.md §6.6).

What they tell is checked by recovered.py's pure rules and written down by kept.py before it counts.
Nothing here has the community's key in its hands.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from nomoat.aggregation.errors import Refused, RemoteProtocolError
from nomoat.aggregation.methods.modules import same_scale
from nomoat.aggregation.methods.plaintext.stacking import MAX_GROWN_RANK
from nomoat.aggregation.protocol import roster as log_of_roster
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.history import recovery
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.history.recovery import Holding, WantedPieces
from nomoat.aggregation.protocol.history.restoration import Restoration
from nomoat.aggregation.protocol.roster import Page, Roster
from nomoat.aggregation.protocol.round_end import Lineage, LineagePage, RoundEnd
from nomoat.server.backup import begun as progress
from nomoat.server.backup.begun import RestoreBegun
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import is_whole
from nomoat.server.recovery.kept import keep_adapter, keep_chain, keep_roster
from nomoat.server.recovery.recovered import PEER, Recovered
from nomoat.server.recovery.upload import Upload

log = logging.getLogger(__name__)

MOST_FAULTS = 3
HEAD_BYTES = 1 << 20  # of an adapter's file, beside its values


class Gathering:
    """Hears members. Thread-safe: one request at a time changes what has come back."""

    def __init__(self, community: OpenCommunity, begun: RestoreBegun) -> None:
        self._community = community
        self._begun = begun
        self._lock = threading.Lock()
        self.state = _loaded(community, begun)
        records = (self.state.base.record, *self.state.records)
        path = community.versions.path
        named = {record.version.adapter for record in records}
        self._here = {digest for digest in named if is_whole(path(digest), digest)}
        self._heard: set[bytes] = set()
        self._faults: Counter[bytes] = Counter()
        self._doubted = False
        self._upload: Upload | None = None
        spec = community.initial().spec
        largest = same_scale(spec, max(MAX_GROWN_RANK, 2 * spec.rank))
        grows = community.settings.method.traits.grows
        self._most_bytes = 4 * (largest if grows else spec).size + HEAD_BYTES

    @property
    def begun(self) -> RestoreBegun:
        """The restore, as far as it has come."""
        return self._begun

    def member(self, identity: bytes) -> str | None:
        """Return the name of an approved member, by the roster as far as it has come back."""
        member = self.state.roster.named(identity)
        return None if member is None or not _approved(member.standing) else member.binding.name

    def heard(self) -> tuple[int, int]:
        """Return how many approved members were heard, of how many."""
        approved = self.state.roster.approved().keys()
        return len(approved & self._heard), len(approved)

    def idle(self, now: float) -> bool:
        """Return True if no adapter is on its way. now: monotonic."""
        return self._upload is None or self._upload.silent(now)

    def hear(self, body: bytes, identity: bytes, now: float) -> WantedPieces:
        """Answer a Holding; Refused if its sender is no member by any roster there is."""
        with self._lock, self._blaming(identity):
            told = wire.decode(wire.Packet(body), Holding, PEER)
            holding = self._checked(told, identity)
            wanted = self.state.wanted(holding, self._here.__contains__)
            if self.member(identity) is None:
                if wanted.entries < 0:
                    raise Refused("only members are asked for what they hold")
                return WantedPieces(entries=wanted.entries)
            self._note_restoration(holding.restored)
            wanted = self._asked_of(identity, wanted, now)
            if wanted.nothing or self._faults[identity] >= MOST_FAULTS:
                self._heard.add(identity)
                return WantedPieces()
            return wanted

    def take_lineage(self, body: bytes, identity: bytes, now: int) -> None:
        """Keep records that continue the backup's; RemoteProtocolError if they do not."""
        self._check_asked(identity)
        with self._lock, self._blaming(identity):
            page = wire.decode(wire.Packet(body), LineagePage, PEER)
            before, after = self.state, self.state.with_lineage(page)
            if after == before:
                return
            self._write(replace(self._begun, ended=(before.ended, after.ended)))
            keep_chain(self._community.versions, before, after, now)
            self.state = after
        log.warning("%s brought back %s", self.member(identity), _named(after))

    def take_roster(self, body: bytes, identity: bytes, now: int) -> None:
        """Keep entries that continue the backup's roster; the sender is a member by them at last.

        RemoteProtocolError if they do not; Refused if it is not.
        """
        with self._lock, self._blaming(identity):
            page = wire.decode(wire.Packet(body), Page, PEER)
            before, after = self.state, self.state.with_entries(page.entries)
            if after.roster.named(identity) is None:
                raise Refused("only members are asked for what they hold")
            if after.entries != before.entries:
                keep_roster(self._community.registrar.database, before, after, now)
                log.warning("%d entries of the roster came back", len(after.entries))
            self.state = after

    def take_adapter(
        self, digest: bytes, after: int, part: bytes, identity: bytes, now: float
    ) -> None:
        """Keep a part of an adapter's file; RemoteProtocolError if it is none that is asked for."""
        self._check_asked(identity)
        with self._lock, self._blaming(identity):
            upload = self._upload
            if upload is None or not upload.is_of(identity, digest):
                raise RemoteProtocolError(PEER, recovery.SECTION, "was not asked for this adapter")
            try:
                adapter = upload.take(after, part, now)
            except RemoteProtocolError:
                self._end_upload()
                raise
            if adapter is not None:
                self._community.versions.keep(adapter)
                keep_adapter(self._community.versions, digest)
                self._here.add(digest)
                self._end_upload()
                log.warning("%s brought back an adapter", self.member(identity))

    def _checked(self, told: Holding, identity: bytes) -> Holding:
        """Check signatures; the first member whose do not hold may know a later key: it is said."""
        try:
            return recovery.check(told, self._keys, PEER)
        except RemoteProtocolError:
            if not self._doubted and (name := self.member(identity)) is not None:
                self._doubted = True
                log.warning(
                    "what %s holds is signed by no key of this backup; if the key was changed "
                    "since it was made, members refuse what is signed here: stop, and bring a "
                    "later backup back",
                    name,
                )
            raise

    def _asked_of(self, identity: bytes, wanted: WantedPieces, now: float) -> WantedPieces:
        """Ask one member at a time for an adapter, after the records that name it."""
        if not wanted.adapter or wanted.versions:
            return replace(wanted, adapter=b"")
        upload = self._upload
        if upload is not None and not upload.is_of(identity, wanted.adapter):
            if not upload.silent(now) and upload.digest == wanted.adapter:
                return replace(wanted, adapter=b"")
            self._end_upload()
        if self._upload is None:
            path = self._community.folder.adapters / f".{wanted.adapter.hex()}.part"
            self._upload = Upload(wanted.adapter, identity, path, self._most_bytes, now)
        return replace(wanted, after=self._upload.size)

    def _end_upload(self) -> None:
        if self._upload is not None:
            self._upload.drop()
        self._upload = None

    def _note_restoration(self, told: Restoration | None) -> None:
        known = self._begun.restored
        if told is not None and (known is None or told.index > known.index):
            self._write(replace(self._begun, restored=told))

    def _write(self, begun: RestoreBegun) -> None:
        progress.write(self._community.folder, begun)
        self._begun = begun

    def _check_asked(self, identity: bytes) -> None:
        if self.member(identity) is None:
            raise Refused("only members are asked for what they hold")
        if self._faults[identity] >= MOST_FAULTS:
            raise Refused("what this member sends is not taken any more")

    @contextmanager
    def _blaming(self, identity: bytes) -> Iterator[None]:
        """Count a refusal against whoever sent what is refused."""
        try:
            yield
        except RemoteProtocolError:
            self._faults[identity] += 1
            raise

    @property
    def _keys(self) -> CommunityKeys:
        return self._community.registrar.keys


def _loaded(community: OpenCommunity, begun: RestoreBegun) -> Recovered:
    """Return what has come back so far, as it was written down."""
    database = community.registrar.database
    versions = database.versions()
    first, records = versions[begun.version], tuple(versions[begun.version + 1 :])
    entries = database.roster_entries(0)
    empty = Roster.empty(community.registrar.keys)
    base = log_of_roster.extend(empty, entries[: begun.entries])
    nothing = Recovered.nothing(Lineage(first, begun.stood), base)
    newest = versions[-1].digest
    ends: list[RoundEnd] = [
        ended for ended in (begun.stood, *begun.ended) if ended.version == newest
    ]
    ended = max(ends, key=lambda each: each.round)
    later = tuple(entries[begun.entries :])
    return replace(
        nothing,
        records=records,
        ended=ended,
        entries=later,
        roster=log_of_roster.extend(base, later),
    )


def _approved(standing: Standing) -> bool:
    return standing is Standing.APPROVED


def _named(state: Recovered) -> str:
    first, last = state.base.record.version.number + 1, state.newest.version.number
    return f"versions {first} to {last}" if state.records else f"round {state.ended.round}"
