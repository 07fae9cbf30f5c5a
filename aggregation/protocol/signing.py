"""Ed25519 signatures with a domain label, so that bytes signed for one purpose serve no other.

What is signed is label ‖ 0x00 ‖ SHA-256(part₁) ‖ SHA-256(part₂) …: parts of any length, no
ambiguity about where one ends (docs/protocol.md §3). Primitives are `cryptography`'s (RFC 8032).
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32

# y-coordinates of Ed25519's eight points of small order (cofactor 8). Under such a
# "public key" anybody can sign anything, and one signature fits many messages: a member of the
# roster could be spoken for, or deny what it signed. RFC 8032 and OpenSSL let them pass.
_P = 2**255 - 19
_ORDER_EIGHT = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_EIGHT, _P - _ORDER_EIGHT})


class BadSignature(Exception):
    """The signature is not this key's over these bytes under this label."""


def signed_bytes(label: str, *parts: bytes) -> bytes:
    """The canonical bytes that a signature under `label` covers."""
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return b"nomoat/" + label.encode("ascii") + b"\0" + digests


class SigningKey:
    """An Ed25519 private key. Its 32 raw bytes come from the caller, who owns the randomness."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, label: str, *parts: bytes) -> bytes:
        """Sign parts under a domain label; 64 bytes."""
        return self._key.sign(signed_bytes(label, *parts))

    def raw(self) -> bytes:
        """The 32 secret bytes, for whoever writes the key file."""
        return self._key.private_bytes_raw()


def verify(public: bytes, signature: bytes, label: str, *parts: bytes) -> None:
    """Return if `signature` is `public`'s under `label` over `parts`; else raise BadSignature."""
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES or is_weak(public):
        raise BadSignature(label)  # what is kept below is of known size
    if not _is_valid(public, signature, signed_bytes(label, *parts)):
        raise BadSignature(label)


@lru_cache(maxsize=4096)  # a hundred simulated volunteers in one process each verify the same
def _is_valid(public: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_weak(public: bytes) -> bool:
    """True if this public key is a point of small order, in any encoding: good for nobody."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    return y % _P in _SMALL_ORDER
