"""Keys of a community under a passphrase: scrypt (RFC 7914), ChaCha20-Poly1305 (RFC 8439)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from nomoat.aggregation.errors import NomoatError, UsageError

SALT_BYTES, NONCE_BYTES = 16, 12
COST = 2**16  # 64 MiB and about a fifth of a second for each guess
SHORTEST = 8


def check_passphrase(passphrase: str) -> str:
    """Return a passphrase that is worth something; UsageError for one of under 8 characters."""
    if len(passphrase) < SHORTEST:
        raise UsageError(
            f"a passphrase needs {SHORTEST} characters at least; several words are best"
        )
    return passphrase


def seal(keys: Mapping[str, bytes], passphrase: str, chance: bytes, about: bytes) -> bytes:
    """Encrypt files by their names. chance: 28 fresh random bytes. about: what it belongs to."""
    salt, nonce = chance[:SALT_BYTES], chance[SALT_BYTES : SALT_BYTES + NONCE_BYTES]
    text = json.dumps({name: content.hex() for name, content in keys.items()}).encode()
    return salt + nonce + _cipher(passphrase, salt).encrypt(nonce, text, about)


def unseal(sealed: bytes, passphrase: str, about: bytes) -> dict[str, bytes]:
    """Decrypt what `seal` made; NomoatError if the passphrase is another, or a byte has changed."""
    salt, rest = sealed[:SALT_BYTES], sealed[SALT_BYTES:]
    nonce, text = rest[:NONCE_BYTES], rest[NONCE_BYTES:]
    try:
        opened = _cipher(passphrase, salt).decrypt(nonce, text, about)
    except (InvalidTag, ValueError):
        raise NomoatError("the passphrase is another, or the backup is damaged") from None
    return {name: bytes.fromhex(content) for name, content in json.loads(opened).items()}


def _cipher(passphrase: str, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt, 32, COST, 8, 1).derive(passphrase.encode()))
