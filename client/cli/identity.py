"""`nomoat identity export` and `import`: the phrase on paper, or an encrypted file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.identity import recovery
from nomoat.client.identity.keys import load_identity
from nomoat.storage.private import create_private

ROW = 4


def render_phrase(words: str) -> str:
    """The phrase in numbered rows, and what it is worth."""
    numbered = [f"{number:2d}. {word:<10}" for number, word in enumerate(words.split(), 1)]
    rows = ["".join(numbered[i : i + ROW]).rstrip() for i in range(0, len(numbered), ROW)]
    return "\n".join([*rows, "", "Whoever has these words is you. Keep them on paper."])


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
    return _place(recovery.seed_of(words), key_path)


def import_file(source: Path, passphrase: str, key_path: Path) -> str:
    """Make `key_path` from an exported file; its public key."""
    _refuse_existing(key_path)
    try:
        sealed = source.read_bytes()
    except OSError as problem:
        raise NomoatError(f"cannot read {source}: {problem.strerror}") from None
    return _place(recovery.unseal(sealed, passphrase), key_path)


def _refuse_existing(path: Path) -> None:
    """Before a second of key derivation; create_private refuses too."""
    if path.exists():
        raise NomoatError(f"{path} exists already; move it away first")


def _place(seed: bytes, key_path: Path) -> str:
    key = SigningKey(seed)
    create_private(key_path, seed.hex().encode() + b"\n")
    return key.public.hex()
