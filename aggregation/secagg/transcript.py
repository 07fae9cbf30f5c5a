"""A session's transcript: 32 bytes in every signature and key derivation; and sets of members.

The offer hash H(SessionOffer) is signed in R0, the transcript T = H(offer hash, SessionRoster) from
R1 on. Clients that were shown different models, manifests, clips, thresholds or peers have
different T, so neither their signatures nor their masks fit together (docs/protocol.md §10.3).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgpack

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Manifest
from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.messages import SessionOffer, SessionRoster


class BadSet(Exception):
    """A bitmap that no honest coordinator would send."""


def manifest_hash(manifest: Manifest) -> bytes:
    """SHA-256 over names and shapes in order, 32 bytes."""
    tensors = [[tensor.name, list(tensor.shape)] for tensor in manifest.tensors]
    return labels.tagged_hash(labels.HASH_MANIFEST, msgpack.packb(tensors))


def work_hash(task: bytes, reply: bytes = b"") -> bytes:
    """Return the name of the work that an exchange sums, 32 bytes.

    task: digest of the TrainTask; reply: to the exchange before, as float32, empty in the first.
    Both together are all that a coordinator says of how an update is made.
    """
    return labels.tagged_hash(labels.HASH_WORK, task, reply)


def offer_hash(offer: SessionOffer) -> bytes:
    """The hash that R0 signatures cover: every field of the offer and the protocol version."""
    return labels.tagged_hash(labels.HASH_OFFER, wire.encode(offer).head)


def session_hash(offered: bytes, roster: SessionRoster) -> bytes:
    """T: the offer, k, t, q and every member with its keys; all fields have fixed lengths."""
    numbers = labels.index_bytes(roster.neighbours, roster.shares, roster.quorum)
    members = b"".join(
        member.identity
        + member.box_key
        + member.mask_key
        + member.signature
        + hashlib.sha256(member.modules).digest()
        for member in roster.members
    )
    return labels.tagged_hash(labels.HASH_SESSION, offered, numbers, members)


def to_bitmap(members: Iterable[int], count: int) -> bytes:
    """Indices below `count` as ⌈count/8⌉ bytes, index 0 the lowest bit of the first."""
    bits = sum(1 << member for member in set(members))
    return bits.to_bytes(-(-count // 8), "little")


def from_bitmap(bitmap: bytes, count: int) -> frozenset[int]:
    """Inverse of `to_bitmap`; BadSet for a wrong length or an index that does not exist."""
    if len(bitmap) != -(-count // 8):
        raise BadSet(f"has {len(bitmap)} bytes for {count} volunteers")
    bits = int.from_bytes(bitmap, "little")
    if bits >> count:
        raise BadSet("names a volunteer that is not of this session")
    return frozenset(i for i in range(count) if bitmap[i >> 3] >> (i & 7) & 1)
