"""Dealing shares of a client's two secrets, one sealed box per neighbour (docs/protocol.md §12).

A box is ChaCha20-Poly1305(seed share ‖ key share) and a commitment to each share. The commitments
let the receiver check its shares at once, and the coordinator later: a share that is not the
committed one is its revealer's fault, committed shares that do not interpolate are the dealer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.masks import shamir
from nomoat.aggregation.secagg.masks.keys import SessionSecrets
from nomoat.aggregation.secagg.masks.prg import Keystream
from nomoat.aggregation.secagg.messages import BOX_BYTES, SEALED_BYTES

_NONCE = bytes(12)  # every key seals exactly one box: (session, source, destination)


class BadBox(Exception):
    """A box that cannot be opened or does not hold what it commits to."""


@dataclass(frozen=True, slots=True)
class HeldShares:
    """One volunteer's shares of another's secrets."""

    seed: bytes = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Dealt:
    """The shares as R1 sends them, and the share of the self-mask seed that the dealer keeps."""

    seed_commitment: bytes
    own_commitment: bytes
    boxes: bytes
    kept: bytes = field(repr=False)


def point_of(index: int) -> int:
    """The Shamir point of the volunteer at `index`: index + 1, never 0."""
    return index + 1


def commit_seed(transcript: bytes, index: int, seed: bytes) -> bytes:
    """Commitment to the self-mask seed of `index`."""
    return labels.commitment(labels.COMMIT_SEED, transcript, labels.index_bytes(index), seed)


def commit_share(label: bytes, transcript: bytes, ends: tuple[int, int], share: bytes) -> bytes:
    """Commitment to a share; ends: (source, destination)."""
    return labels.commitment(label, transcript, labels.index_bytes(*ends), share)


def deal(
    secrets: SessionSecrets,
    threshold: int,
    transcript: bytes,
    index: int,
    agreed: Mapping[int, bytes],
) -> Dealt:
    """Share both secrets with every neighbour; agreed: neighbour → X25519 secret of the box keys.

    The self-mask seed is shared with oneself, too: a volunteer that survives adds its own share.
    """
    neighbours = sorted(agreed)
    stream = Keystream(secrets.coefficient_key)
    points = [point_of(i) for i in [*neighbours, index]]
    *seeds, kept = shamir.split(secrets.self_seed, threshold, points, stream)
    # The last point of the key's polynomial belongs to the dealer, who has no use for it.
    *keys, _ = shamir.split(secrets.mask_private, threshold, points, stream)
    boxes = [
        seal(agreed[i], transcript, (index, i), HeldShares(seed, key))
        for i, seed, key in zip(neighbours, seeds, keys, strict=True)
    ]
    return Dealt(
        commit_seed(transcript, index, secrets.self_seed),
        commit_share(labels.COMMIT_SEED_SHARE, transcript, (index, index), kept),
        b"".join(boxes),
        kept,
    )


def seal(agreed: bytes, transcript: bytes, ends: tuple[int, int], held: HeldShares) -> bytes:
    """The box from ends[0] to ends[1], BOX_BYTES long. RFC 8439, §2.8."""
    bound = commit_share(labels.COMMIT_SEED_SHARE, transcript, ends, held.seed)
    bound += commit_share(labels.COMMIT_KEY_SHARE, transcript, ends, held.key)
    cipher, associated = _cipher(agreed, transcript, ends, bound)
    return cipher.encrypt(_NONCE, held.seed + held.key, associated) + bound


def open_box(agreed: bytes, transcript: bytes, ends: tuple[int, int], box: bytes) -> HeldShares:
    """Inverse of `seal`; BadBox if the box is not from ends[0], or its shares are not committed."""
    sealed, bound = box[:SEALED_BYTES], box[SEALED_BYTES:]
    cipher, associated = _cipher(agreed, transcript, ends, bound)
    try:
        opened = cipher.decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        raise BadBox("does not open") from None
    held = HeldShares(opened[: shamir.SHARE_BYTES], opened[shamir.SHARE_BYTES :])
    expected = commit_share(labels.COMMIT_SEED_SHARE, transcript, ends, held.seed)
    expected += commit_share(labels.COMMIT_KEY_SHARE, transcript, ends, held.key)
    if bound != expected:
        raise BadBox("does not hold the shares that it commits to")
    try:
        shamir.parse(held.seed)
        shamir.parse(held.key)
    except shamir.BadShares as problem:
        raise BadBox(str(problem)) from None
    return held


def box_at(boxes: bytes, position: int) -> bytes:
    """The box for the dealer's neighbour number `position`."""
    return boxes[position * BOX_BYTES : (position + 1) * BOX_BYTES]


def commitments_in(box: bytes) -> tuple[bytes, bytes]:
    """The commitments (seed share, key share) of a box, which anybody may read."""
    middle = SEALED_BYTES + labels.COMMITMENT_BYTES
    return box[SEALED_BYTES:middle], box[middle:]


def _cipher(
    agreed: bytes, transcript: bytes, ends: tuple[int, int], bound: bytes
) -> tuple[ChaCha20Poly1305, bytes]:
    where = labels.index_bytes(*ends)
    key = labels.derive(agreed, labels.KDF_BOX, transcript, where)
    return ChaCha20Poly1305(key), transcript + where + bound
