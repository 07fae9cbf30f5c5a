"""The signature in the head of a fleet call, as Flower's nodes make it; flwr itself is not needed.

ECDSA over P-384 with SHA-256, of the time at which the call was made. The names of the headers are
Flower's, and a test holds them to it.
"""

from __future__ import annotations

import base64
import datetime
import functools
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

KEY_HEADER = "flwr-public-key"
SIGNATURE_HEADER = "flwr-signature"
TIME_HEADER = "flwr-timestamp"
OLDEST_S, NEWEST_S = 305.0, -5.0  # a call's age
PROVEN_KEY = "nomoat.node_key"  # in an ASGI scope: the PEM whose signature was checked


def claimed_key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The node key (PEM) that a request claims to be signed with, unchecked; None without one."""
    try:
        return base64.b64decode(headers[KEY_HEADER.encode()], validate=True)
    except (KeyError, ValueError):
        return None


def signed_just_now(headers: Mapping[bytes, bytes], key: bytes) -> bool:
    """True if a request's head has a time of the last seconds and its signature under `key`."""
    try:
        stamp = headers[TIME_HEADER.encode()]
        signature = base64.b64decode(headers[SIGNATURE_HEADER.encode()], validate=True)
        made_at = datetime.datetime.fromisoformat(stamp.decode("ascii"))
        age_s = (datetime.datetime.now(tz=datetime.UTC) - made_at).total_seconds()
        if not NEWEST_S < age_s < OLDEST_S:
            return False
        _loaded(key).verify(signature, stamp, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, KeyError, ValueError, TypeError, OverflowError):
        return False
    return True


@functools.lru_cache(maxsize=1 << 13)
def _loaded(pem: bytes) -> ec.EllipticCurvePublicKey:
    """A public key; ValueError if it is none that signs."""
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no key of an elliptic curve")
    return key
