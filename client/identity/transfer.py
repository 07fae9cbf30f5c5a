"""An identity on its way to another machine: as a phrase on paper, or as an encrypted file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.identity import recovery
from nomoat.client.identity.keys import load_identity
from nomoat.storage.private import create_private


def export_phrase(key_path: Path) -> str:
    """The words that stand for the identity in `key_path`."""
    return recovery.phrase(load_identity(key_path).raw())


def export_file(
    key_path: Path, target: Path, passphrase: str, entropy: Callable[[int], bytes]
) -> None:
    """Write the identity, encrypted, to a file that is not there yet."""
    _refuse_existing(target)
    salt, nonce = entropy(recovery.SALT_BYTES), entropy(recovery.NONCE_BYTES)
    secret = load_identity(key_path).raw()
    create_private(target, recovery.seal(secret, passphrase, salt, nonce))


def import_phrase(words: str, key_path: Path) -> str:
    """Make `key_path` from the words, never over one that is there; its public key, hex."""
    return _keep(recovery.seed_of(words), key_path)


def import_file(source: Path, passphrase: str, key_path: Path) -> str:
    """Make `key_path` from an exported file; its public key."""
    _refuse_existing(key_path)
    try:
        sealed = source.read_bytes()
    except OSError as problem:
        raise NomoatError(f"cannot read {source}: {problem.strerror}") from None
    return _keep(recovery.unseal(sealed, passphrase), key_path)


def _refuse_existing(path: Path) -> None:
    """Before a second of key derivation; create_private refuses too."""
    if path.exists():
        raise NomoatError(f"{path} exists already; move it away first")


def _keep(seed: bytes, key_path: Path) -> str:
    key = SigningKey(seed)
    create_private(key_path, seed.hex().encode() + b"\n")
    return key.public.hex()
