"""One-time keys: what a link to a page carries, good for one opening and for a while. Pure.

    key = expires ‖ "." ‖ nonce ‖ "." ‖ HMAC-SHA-256(secret, "nomoat page v1" ‖ 0 ‖ expires ‖ nonce)

`secret` lies in a private file beside what the page shows, and is drawn anew whenever a page opens:
whoever can read it may mint keys, and a key of an earlier opening is worth nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final

DOMAIN: Final = b"nomoat page v1\0"
SECRET_BYTES: Final = 32
NONCE_BYTES: Final = 12
_KEY: Final = re.compile(r"(\d{1,12})\.([0-9a-f]{24})\.([0-9a-f]{64})")


def mint(secret: bytes, nonce: bytes, expires: int) -> str:
    """Return the key of a nonce, good until `expires` (unix seconds)."""
    return f"{expires}.{nonce.hex()}.{_mac(secret, nonce, expires)}"


def nonce_of(key: str, secret: bytes, now: float) -> bytes | None:
    """Return the nonce of a key that holds at `now`; None for any other text."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    expires, nonce = int(found[1]), bytes.fromhex(found[2])
    good = hmac.compare_digest(found[3], _mac(secret, nonce, expires))
    return nonce if good and now < expires else None


def _mac(secret: bytes, nonce: bytes, expires: int) -> str:
    said = DOMAIN + b"%d" % expires + nonce
    return hmac.new(secret, said, hashlib.sha256).hexdigest()
