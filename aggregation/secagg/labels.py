"""Domain labels: every hash, key derivation and signature of a session says what it is for.

Two uses never share a label, so bytes made for one can never be passed off as the other
(docs/protocol.md §10.3).
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# Signatures (nomoat.aggregation.protocol.signing adds "nomoat/" in front).
SIGN_KEYS: Final = "secagg/1/keys"
SIGN_SHARES: Final = "secagg/1/shares"
SIGN_CHECK: Final = "secagg/1/check"
SIGN_MASKED: Final = "secagg/1/masked"
SIGN_SURVIVORS: Final = "secagg/1/survivors"
SIGN_SKETCH: Final = "secagg/1/sketch"
SIGN_REVEAL: Final = "secagg/1/reveal"

# Hashes.
HASH_MANIFEST: Final = b"nomoat/secagg/1/manifest"
HASH_WORK: Final = b"nomoat/secagg/1/work"
HASH_OFFER: Final = b"nomoat/secagg/1/offer"
HASH_SESSION: Final = b"nomoat/secagg/1/session"
COHORT: Final = b"nomoat/secagg/1/cohort"
COMMIT_AUDIT: Final = b"nomoat/secagg/1/commit audit seed"
COMMIT_SEED: Final = b"nomoat/secagg/1/commit self-mask seed"
COMMIT_SEED_SHARE: Final = b"nomoat/secagg/1/commit share of self-mask seed"
COMMIT_KEY_SHARE: Final = b"nomoat/secagg/1/commit share of mask key"

# Key derivations.
KDF_BOX_PRIVATE: Final = b"nomoat/secagg/1/box private key"
KDF_MASK_PRIVATE: Final = b"nomoat/secagg/1/mask private key"
KDF_SELF_SEED: Final = b"nomoat/secagg/1/self-mask seed"
KDF_COEFFICIENTS: Final = b"nomoat/secagg/1/shamir coefficients"
KDF_ROUNDING: Final = b"nomoat/secagg/1/stochastic rounding"
KDF_NOISE: Final = b"nomoat/secagg/1/noise"
KDF_BOX: Final = b"nomoat/secagg/1/share box"
KDF_PAIR_MASK: Final = b"nomoat/secagg/1/pairwise mask"
KDF_SELF_MASK: Final = b"nomoat/secagg/1/self mask"
KDF_AUDIT: Final = b"nomoat/secagg/1/audit buckets"
KDF_GRAPH: Final = b"nomoat/secagg/1/neighbour graph"

KEY_BYTES: Final = 32
COMMITMENT_BYTES: Final = 16


def index_bytes(*indices: int) -> bytes:
    """Volunteer indices as four big-endian bytes each."""
    return struct.pack(f">{len(indices)}I", *indices)


def tagged_hash(label: bytes, *parts: bytes) -> bytes:
    """SHA-256(label ‖ 0x00 ‖ SHA-256(part₁) ‖ SHA-256(part₂) …), 32 bytes."""
    hashed = hashlib.sha256(label + b"\0")
    for part in parts:
        hashed.update(hashlib.sha256(part).digest())
    return hashed.digest()


def commitment(label: bytes, transcript: bytes, indices: bytes, secret: bytes) -> bytes:
    """16 bytes that bind their maker to a uniformly random secret of 32 bytes or more."""
    return hashlib.sha256(label + b"\0" + transcript + indices + secret).digest()[:COMMITMENT_BYTES]


def derive(secret: bytes, label: bytes, transcript: bytes = b"", indices: bytes = b"") -> bytes:
    """HKDF-SHA256(secret, no salt, info = label ‖ 0x00 ‖ transcript ‖ indices), 32 bytes. RFC 5869.

    transcript is empty or 32 bytes, so the fields of info cannot run into each other.
    """
    info = label + b"\0" + transcript + indices
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)
