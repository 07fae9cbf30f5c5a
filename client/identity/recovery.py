"""The volunteer's identity as a recovery phrase, and as an encrypted file. Pure.

The phrase is BIP-39's: 24 words of a published list stand for 256 bits and an 8-bit checksum (word
list and code: Trezor's `mnemonic`). It is the Ed25519 seed itself, so the words on paper are the
identity. The file adds what else belongs to it: scrypt (RFC 7914) makes a key of the passphrase,
ChaCha20-Poly1305 (RFC 8439) seals, and header and parameters are authenticated with it.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from nomoat.aggregation.errors import BadData, UsageError

if TYPE_CHECKING:
    from mnemonic import Mnemonic

MAGIC: Final = b"nomoat identity 1\n"
SEED_BYTES: Final = 32
WORDS: Final = 24
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 12
MAX_FILE_BYTES: Final = 64 << 20
LEAST_PASSPHRASE: Final = 10  # characters


@dataclass(frozen=True, slots=True)
class Cost:
    """scrypt's n = 2^log_n, r, p: RFC 7914 §2; 128 · r · n bytes of memory (128 MiB)."""

    log_n: int = 17
    r: int = 8
    p: int = 1


def phrase(seed: bytes) -> str:
    """The 24 words that stand for a 32-byte seed."""
    if len(seed) != SEED_BYTES:
        raise UsageError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    return _words().to_mnemonic(seed)


def seed_of(words: str) -> bytes:
    """The seed that 24 words stand for; BadData names the first wrong word, or the checksum.

    Case, spacing, line breaks and numbering ("7. ocean") do not matter; words do not have to be
    longer than their first four letters, which no two words of the list share.
    """
    given = [w for w in _normal(words).replace(",", " ").split() if not w.rstrip(".)").isdigit()]
    if len(given) != WORDS:
        raise BadData(f"a recovery phrase has {WORDS} words; these are {len(given)}")
    whole = [_word(number, word) for number, word in enumerate(given, 1)]
    try:
        return bytes(_words().to_entropy(" ".join(whole)))
    except ValueError:
        raise BadData(
            "the words do not belong together (checksum): one of them is another word of the list, "
            "or two have changed places"
        ) from None


def _word(number: int, word: str) -> str:
    listed = _words().wordlist
    if word in listed:
        return word
    longer = [w for w in listed if len(word) >= 4 and w.startswith(word)]
    if len(longer) == 1:
        return str(longer[0])
    near = [w for w in listed if w[:3] == word[:3]]
    advice = f"; did you mean {' or '.join(near[:3])}?" if near else ""
    raise BadData(f"word {number}, {word!r}, is not in the list{advice}")


@cache
def _words() -> Mnemonic:
    from mnemonic import Mnemonic

    return Mnemonic("english")


def seal(
    secret: bytes, passphrase: str, salt: bytes, nonce: bytes, cost: Cost | None = None
) -> bytes:
    """`secret` as an encrypted file. `salt` (16 bytes) and `nonce` (12) are fresh randomness."""
    cost = cost or Cost()
    if len(passphrase) < LEAST_PASSPHRASE:
        raise UsageError(f"the passphrase needs at least {LEAST_PASSPHRASE} characters")
    if len(salt) != SALT_BYTES or len(nonce) != NONCE_BYTES:
        raise UsageError(f"sealing needs {SALT_BYTES} bytes of salt and {NONCE_BYTES} of nonce")
    header = MAGIC + bytes((cost.log_n, cost.r, cost.p)) + salt + nonce
    return header + ChaCha20Poly1305(_key(passphrase, salt, cost)).encrypt(nonce, secret, header)


def unseal(file: bytes, passphrase: str) -> bytes:
    """Return what `seal` hid; BadData if the passphrase is wrong or the file was changed.

    The cost in the file is bounded before it is used: a forged file must not take all memory.
    """
    size = len(MAGIC) + 3 + SALT_BYTES + NONCE_BYTES
    if not file.startswith(MAGIC) or len(file) < size + 16 or len(file) > MAX_FILE_BYTES:
        raise BadData("this is no nomoat identity file, or it was cut short")
    header, sealed = file[:size], file[size:]
    cost = Cost(*header[len(MAGIC) : len(MAGIC) + 3])
    if not (10 <= cost.log_n <= 20 and 1 <= cost.r <= 8 and 1 <= cost.p <= 4):
        raise BadData("the identity file asks for an unreasonable amount of work; it is damaged")
    salt = header[-SALT_BYTES - NONCE_BYTES : -NONCE_BYTES]
    try:
        key = ChaCha20Poly1305(_key(passphrase, salt, cost))
        return key.decrypt(header[-NONCE_BYTES:], sealed, header)
    except InvalidTag:
        raise BadData("wrong passphrase, or the identity file was changed") from None


def _key(passphrase: str, salt: bytes, cost: Cost) -> bytes:
    kdf = Scrypt(salt=salt, length=32, n=1 << cost.log_n, r=cost.r, p=cost.p)
    return kdf.derive(unicodedata.normalize("NFKD", passphrase).encode())


def _normal(text: str) -> str:
    """NFKD and lower case, as BIP-39 asks."""
    return unicodedata.normalize("NFKD", text).lower()
