"""The community's roster: a hash-chained, signed log of who joined, was held, banned or left.

Entry i holds SHA-256 of entry i-1; the first holds the community's id. The community signs each.
A client keeps the roster it has seen and accepts only its extension, so a coordinator cannot show
different volunteers different histories, nor take one back, without being caught by the first
client that compares (docs/protocol.md §5; the idea of a transparency log, RFC 9162 §2.1.4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import (
    Binding,
    Digest,
    Handle,
    PublicKey,
    Signature,
    Standing,
    UnixTime,
    check_binding,
)
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, verify

SECTION = "§5"
LABEL = "roster.entry"
MAX_ENTRIES = 1_000_000
PAGE = 2_000


class Event(StrEnum):
    """The kinds of entry, each said of one volunteer."""

    JOIN = "join"
    HOLD = "hold"
    RELEASE = "release"
    BAN = "ban"
    LEAVE = "leave"


# (standing, event) → standing; None is "not in the roster". What is missing is refused.
STANDINGS: Mapping[tuple[Standing | None, Event], Standing] = {
    (None, Event.JOIN): Standing.APPROVED,
    (Standing.APPROVED, Event.HOLD): Standing.HELD,
    (Standing.APPROVED, Event.BAN): Standing.BANNED,
    (Standing.APPROVED, Event.LEAVE): Standing.LEFT,
    (Standing.HELD, Event.RELEASE): Standing.APPROVED,
    (Standing.HELD, Event.BAN): Standing.BANNED,
    (Standing.HELD, Event.LEAVE): Standing.LEFT,
    (Standing.LEFT, Event.JOIN): Standing.APPROVED,
    (Standing.LEFT, Event.RELEASE): Standing.APPROVED,
    (Standing.LEFT, Event.BAN): Standing.BANNED,
    (Standing.BANNED, Event.RELEASE): Standing.HELD,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log. A join carries the volunteer's binding, the others its identity."""

    index: Annotated[int, wire.Limit(0, MAX_ENTRIES)]
    previous: Digest
    event: Annotated[str, wire.Limit(1, 20)]
    name: Handle
    identity: PublicKey
    binding: Binding | None
    reason: Annotated[str, wire.Limit(0, 200)]
    at: UnixTime


@wire.message("roster.entry")
@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry under the community's signature."""

    entry: Entry
    signature: Signature


@wire.message("roster.page")
@dataclass(frozen=True, slots=True)
class Page:
    """Entries in order, from the index that was asked for; `length` is the whole log's."""

    length: Annotated[int, wire.Limit(0, MAX_ENTRIES)]
    entries: Annotated[tuple[SignedEntry, ...], wire.Limit(0, PAGE)]


@dataclass(frozen=True, slots=True)
class Member:
    """A volunteer as the log has it."""

    binding: Binding
    standing: Standing
    reason: str
    since: int


@dataclass(frozen=True)
class Roster:
    """A verified log up to `length` entries: its head and what it says of everyone."""

    keys: CommunityKeys
    length: int = 0
    head: bytes = b""
    members: Mapping[str, Member] = field(default_factory=dict)

    @classmethod
    def empty(cls, keys: CommunityKeys) -> Roster:
        """The roster before anyone joined."""
        return cls(keys, 0, keys.id, {})

    def approved(self) -> dict[bytes, str]:
        """The identity and name of everyone who may take part: the roster of secure aggregation."""
        return {
            member.binding.identity: name
            for name, member in self.members.items()
            if member.standing is Standing.APPROVED
        }

    def named(self, identity: bytes) -> Member | None:
        """The member with this Ed25519 key."""
        return next((m for m in self.members.values() if m.binding.identity == identity), None)


def digest(entry: Entry) -> bytes:
    """An entry's hash, which the next one holds."""
    return hashlib.sha256(_entry_bytes(entry)).digest()


def append(
    roster: Roster, event: Event, subject: Binding, key: SigningKey, at: int, reason: str = ""
) -> SignedEntry:
    """The next entry of `roster`, signed; RemoteProtocolError if it may not follow."""
    entry = Entry(
        index=roster.length,
        previous=roster.head,
        event=event.value,
        name=subject.name,
        identity=subject.identity,
        binding=subject if event is Event.JOIN else None,
        reason=reason,
        at=at,
    )
    signed = SignedEntry(entry, key.sign(LABEL, _entry_bytes(entry)))
    extend(roster, [signed])
    return signed


def extend(roster: Roster, entries: Iterable[SignedEntry]) -> Roster:
    """`roster` followed by `entries`, each checked: chain, signature, binding, allowed move.

    Raises RemoteProtocolError at the first that does not follow; `roster` itself never changes.
    """
    members = dict(roster.members)
    taken = {key for m in members.values() for key in (m.binding.identity, m.binding.node_key)}
    length, head = roster.length, roster.head
    for signed in entries:
        entry = signed.entry
        if entry.index != length or entry.previous != head:
            raise _bad(entry, "does not continue the roster this side holds: it was rewritten")
        check_signature(signed, roster.keys)
        members[entry.name] = _moved(members, taken, entry, roster.keys.founding)
        length, head = length + 1, digest(entry)
        roster.keys.check_head(length, head, "coordinator")
    return replace(roster, length=length, head=head, members=members)


def check_signature(signed: SignedEntry, keys: CommunityKeys) -> None:
    """RemoteProtocolError unless the community signed an entry, with the key of its place."""
    try:
        verify(
            keys.of_entry(signed.entry.index), signed.signature, LABEL, _entry_bytes(signed.entry)
        )
    except BadSignature:
        raise _bad(signed.entry, "is not signed by the community") from None


def accept_page(roster: Roster, page: Page) -> Roster:
    """Extend a pinned roster by a page; a log shorter than what was pinned is a rewritten one."""
    if page.length < roster.length:
        reason = f"shows a roster of {page.length} entries, {roster.length} were seen: rewritten"
        raise RemoteProtocolError("coordinator", SECTION, reason)
    extended = extend(roster, page.entries)
    if extended.length > page.length or (extended.length < page.length and not page.entries):
        raise RemoteProtocolError("coordinator", SECTION, "the roster page has a wrong length")
    return extended


def _moved(
    members: Mapping[str, Member], taken: set[bytes], entry: Entry, community: bytes
) -> Member:
    known = members.get(entry.name)
    standing = None if known is None else known.standing
    try:
        after = STANDINGS[standing, Event(entry.event)]
    except (KeyError, ValueError):
        raise _bad(entry, f"{entry.event!r} cannot follow {standing or 'nothing'}") from None
    if known is not None and known.binding.identity != entry.identity:
        raise _bad(entry, "speaks of another key than the one that joined")
    if entry.event == Event.JOIN:
        if known is not None:  # it left: its keys are free for it, and for nobody else before
            taken -= {known.binding.identity, known.binding.node_key}
        return Member(_joining(taken, entry, community), after, entry.reason, entry.at)
    if known is None or entry.binding is not None:
        raise _bad(entry, "binds keys, which only a join may do")
    return Member(known.binding, after, entry.reason, entry.at)


def _joining(taken: set[bytes], entry: Entry, community: bytes) -> Binding:
    binding = entry.binding
    if binding is None or (binding.name, binding.identity) != (entry.name, entry.identity):
        raise _bad(entry, "joins without a binding of its own")
    check_binding(binding, community)
    if {binding.identity, binding.node_key} & taken:  # one person, one name
        raise _bad(entry, "joins with a key that another name already has")
    taken |= {binding.identity, binding.node_key}
    return binding


def _bad(entry: Entry, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"roster entry {entry.index} ({entry.name})", SECTION, reason)


def _entry_bytes(entry: Entry) -> bytes:
    return wire.encode(SignedEntry(entry, bytes(64))).head
