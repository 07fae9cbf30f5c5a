"""A client's secrets of one session, all from 32 bytes of entropy, and X25519 done carefully."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg import labels

_FIELD_PRIME = 2**255 - 19  # RFC 7748, §4.1
_ANY_SCALAR = bytes(32)  # clamping makes every scalar a multiple of 8, which low orders divide


class BadKey(Exception):
    """A public key that no honest volunteer would send."""


class SessionSecrets:
    """Both private keys, the self-mask seed and the keys of this client's own randomness.

    entropy: 32 bytes from the operating system, never used for anything else. The object cannot
    be pickled, copied or printed, and `erase` overwrites what it holds; copies that Python or
    OpenSSL made on the way cannot be reached (docs/threat-model.md).
    """

    __slots__ = ("_held",)

    def __init__(self, entropy: bytes) -> None:
        if len(entropy) != labels.KEY_BYTES:
            raise LocalProtocolError(f"a session needs 32 bytes of entropy, not {len(entropy)}")
        purposes = (
            labels.KDF_BOX_PRIVATE,
            labels.KDF_MASK_PRIVATE,
            labels.KDF_SELF_SEED,
            labels.KDF_COEFFICIENTS,
            labels.KDF_ROUNDING,
            labels.KDF_NOISE,
        )
        self._held = {label: bytearray(labels.derive(entropy, label)) for label in purposes}

    def _get(self, label: bytes) -> bytes:
        if label not in self._held:
            raise LocalProtocolError("this session's secrets are erased")
        return bytes(self._held[label])

    @property
    def box_private(self) -> bytes:
        """X25519 private key that share boxes are sealed with."""
        return self._get(labels.KDF_BOX_PRIVATE)

    @property
    def mask_private(self) -> bytes:
        """X25519 private key behind the pairwise masks; Shamir-shared."""
        return self._get(labels.KDF_MASK_PRIVATE)

    @property
    def self_seed(self) -> bytes:
        """Seed of the self mask; Shamir-shared."""
        return self._get(labels.KDF_SELF_SEED)

    @property
    def coefficient_key(self) -> bytes:
        """Keystream key that Shamir coefficients are drawn from."""
        return self._get(labels.KDF_COEFFICIENTS)

    @property
    def rounding_key(self) -> bytes:
        """Keystream key of stochastic rounding."""
        return self._get(labels.KDF_ROUNDING)

    @property
    def noise_key(self) -> bytes:
        """Keystream key of this volunteer's share of the sum's noise."""
        return self._get(labels.KDF_NOISE)

    def erase(self) -> None:
        """Overwrite and forget everything; may be called twice."""
        for held in self._held.values():
            held[:] = bytes(len(held))
        self._held.clear()

    def __repr__(self) -> str:
        return f"<SessionSecrets {'held' if self._held else 'erased'}>"

    def __reduce__(self) -> NoReturn:
        raise LocalProtocolError("session secrets are never stored")


def public_of(private: bytes) -> bytes:
    """The X25519 public key (32 bytes) of a private key (32 bytes)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def check_public(public: bytes) -> None:
    """Raise BadKey unless `public` is the one canonical encoding of a field element.

    X25519 ignores the top bit and reduces mod 2^255 − 19: without this check one key has several
    spellings, and a uniqueness check could be fooled.
    """
    if len(public) != labels.KEY_BYTES or int.from_bytes(public, "little") >= _FIELD_PRIME:
        raise BadKey("is not a canonical X25519 public key")


def check_order(public: bytes) -> None:
    """Raise BadKey if `public` is of low order, without needing anybody's private key."""
    agree(_ANY_SCALAR, public)


def agree(private: bytes, public: bytes) -> bytes:
    """The X25519 shared secret; BadKey if `public` is of low order (RFC 7748, §6.1)."""
    return agreement(private)(public)


def agreement(private: bytes) -> Callable[[bytes], bytes]:
    """`agree` with one private key and many public ones: the key is read once."""
    key = X25519PrivateKey.from_private_bytes(private)

    def with_public(public: bytes) -> bytes:
        try:
            return key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:  # OpenSSL refuses the all-zero secret that every low-order point gives
            raise BadKey("is an X25519 key of low order") from None

    return with_public
