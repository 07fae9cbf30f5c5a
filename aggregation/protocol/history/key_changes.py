"""The keys a community has signed with, one after the other (docs/protocol.md §5.9).

    keys = CommunityKeys(founding)
    keys = keys.extended(changes, "coordinator")    # raises: a fork, or not signed by both keys
    keys.current, keys.of_entry(index), keys.of_version(number), keys.of_round(round)

The founding key stays the community's identity. A change is signed by the key that ends and by the
one that follows, and says where in roster, versions and rounds it takes effect: whoever steals a
key that has ended can sign nothing after that.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Annotated

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.enrolment import (
    Digest,
    PublicKey,
    Signature,
    UnixTime,
    community_id,
)
from nomoat.aggregation.protocol.signing import BadSignature, SigningKey, is_weak, verify

SECTION = "§5.9"
LABEL = "community.key"
MOST = 100


@wire.message("community.key")
@dataclass(frozen=True, slots=True)
class KeyChange:
    """`new` takes the place of `old` after what is named here of roster, versions and rounds.

    previous: digest of the change before, of the first one the community's id. roster_length,
    roster_head; version, record: number and digest of the newest. round: the last that ended, or
    has receipts. at: unix time.
    """

    index: Annotated[int, wire.Limit(1, MOST)]
    previous: Digest
    old: PublicKey
    new: PublicKey
    roster_length: Annotated[int, wire.Limit(0, 1_000_000)]
    roster_head: Digest
    version: Annotated[int, wire.Limit(0, 1_000_000)]
    record: Digest
    round: Annotated[int, wire.Limit(0, 1_000_000)]
    at: UnixTime
    by_old: Signature
    by_new: Signature

    @property
    def digest(self) -> bytes:
        """The change's name, which the next one holds; 32 bytes."""
        return hashlib.sha256(_bytes(self)).digest()

    def precedes(self, later: KeyChange) -> bool:
        """Return True if `later` takes effect nowhere before this one."""
        return (
            self.roster_length <= later.roster_length
            and self.version <= later.version
            and self.round <= later.round
        )


@wire.message("community.keys")
@dataclass(frozen=True, slots=True)
class KeyChanges:
    """Every change of a community's key, the first one first; none of one that never did."""

    founding: PublicKey
    changes: Annotated[tuple[KeyChange, ...], wire.Limit(0, MOST)]


@dataclass(frozen=True)
class CommunityKeys:
    """The keys of one community, verified: the founding one, and every change since."""

    founding: bytes  # Ed25519 public key, 32 bytes
    changes: tuple[KeyChange, ...] = ()

    @classmethod
    def of(cls, current: bytes, changes: tuple[KeyChange, ...]) -> CommunityKeys:
        """The keys of a community that signs with `current` now, after verified changes."""
        return cls(changes[0].old if changes else current, changes)

    @property
    def id(self) -> bytes:
        """The community's id, which no change of its key changes."""
        return community_id(self.founding)

    @property
    def current(self) -> bytes:
        """The key it signs with now."""
        return self.changes[-1].new if self.changes else self.founding

    def of_entry(self, index: int) -> bytes:
        """The key that signed this entry of the roster."""
        return self._after(sum(change.roster_length <= index for change in self.changes))

    def of_version(self, number: int) -> bytes:
        """The key that signed this version."""
        return self._after(sum(change.version < number for change in self.changes))

    def of_round(self, number: int) -> tuple[bytes, ...]:
        """The keys that what is said of this round may be signed with: that of its time, or later.

        Its end is signed when it is asked for; a round that was cut off may be begun again.
        """
        first = sum(change.round < number for change in self.changes)
        return tuple(self._after(count) for count in range(first, len(self.changes) + 1))

    def check_head(self, length: int, head: bytes, peer: str) -> None:
        """Raise RemoteProtocolError if a change was made under another roster of this length."""
        if any(c.roster_length == length and c.roster_head != head for c in self.changes):
            raise _refusal(peer, f"changed its key under another roster of {length} entries")

    def check_record(self, number: int, digest: bytes, peer: str) -> None:
        """Raise RemoteProtocolError if a change was made under another version of this number."""
        if any(c.version == number and c.record != digest for c in self.changes):
            raise _refusal(peer, f"changed its key under another version {number}")

    def holds(self, public: bytes) -> bool:
        """Return True if this is, or was, the community's key."""
        return public == self.founding or any(change.new == public for change in self.changes)

    def message(self) -> KeyChanges:
        """Return what is told to whoever asks, and kept."""
        return KeyChanges(self.founding, self.changes)

    def extended(self, told: KeyChanges, peer: str) -> CommunityKeys:
        """Return the keys as `told`, if that continues these; else RemoteProtocolError.

        The first change that was seen wins: another one in its place, or none, is refused.
        """
        known = len(self.changes)
        if told.founding != self.founding:
            raise _refusal(peer, "is another community: it began with another key")
        if told.changes[:known] != self.changes:
            reason = (
                f"takes back or forks a change of its key that this side has seen ({known} so "
                "far): the key of before is in other hands, or an older backup was put back"
            )
            raise _refusal(peer, reason)
        keys = self
        for change in told.changes[known:]:
            keys = keys.followed_by(change, peer)
        return keys

    def followed_by(self, change: KeyChange, peer: str) -> CommunityKeys:
        """Return the keys with one more change; RemoteProtocolError if it may not follow."""
        before = self.changes[-1] if self.changes else None
        follows = (len(self.changes) + 1, self.id if before is None else before.digest)
        if (change.index, change.previous) != follows or change.old != self.current:
            raise _refusal(peer, f"change {change.index} of its key does not follow the one before")
        if self.holds(change.new) or is_weak(change.new):
            raise _refusal(peer, f"change {change.index} of its key is to one it may not have")
        if before is not None and not before.precedes(change):
            raise _refusal(peer, f"change {change.index} of its key takes effect before the last")
        for public, signature in ((change.old, change.by_old), (change.new, change.by_new)):
            try:
                verify(public, signature, LABEL, self.id, _bytes(change))
            except BadSignature:
                reason = f"change {change.index} of its key is not signed by both keys"
                raise _refusal(peer, reason) from None
        return replace(self, changes=(*self.changes, change))

    def _after(self, changes: int) -> bytes:
        return self.changes[changes - 1].new if changes else self.founding


def sign(blank: KeyChange, keys: CommunityKeys, old: SigningKey, new: SigningKey) -> KeyChange:
    """Put a change of the key under both signatures; `blank` has any in their place."""
    parts = (keys.id, _bytes(blank))
    return replace(blank, by_old=old.sign(LABEL, *parts), by_new=new.sign(LABEL, *parts))


def opened(told: KeyChanges, peer: str) -> CommunityKeys:
    """Return the keys in a message, every change verified; RemoteProtocolError if one is not."""
    return CommunityKeys(told.founding).extended(told, peer)


def _bytes(change: KeyChange) -> bytes:
    return wire.encode(replace(change, by_old=bytes(64), by_new=bytes(64))).head


def _refusal(peer: str, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(peer, SECTION, reason)
