"""The volunteer's keys: one Ed25519 identity per home, one P-384 node key per community.

The node key is what Flower's transport wants and is different in each community, so that two
coordinators cannot link a volunteer by it. Both are made once, 0600, and refused if others can
read them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.storage.private import create_private, read_private

SEED_BYTES = 32


def identity(path: Path, entropy: Callable[[int], bytes]) -> SigningKey:
    """The Ed25519 identity in `path`, made from `entropy` (os.urandom) if there is none."""
    if not path.exists():
        create_private(path, entropy(SEED_BYTES).hex().encode() + b"\n")
    return load_identity(path)


def load_identity(path: Path) -> SigningKey:
    """The identity in `path`; NomoatError if it is missing, readable by others or damaged."""
    text = read_private(path, "identity key")
    try:
        return SigningKey(bytes.fromhex(text.decode("ascii").strip()))
    except ValueError:
        raise NomoatError(f"identity key {path} is damaged; restore it from a backup") from None


def node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The P-384 node key in `path` (OpenSSH format, as Flower wants it), made if there is none."""
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP384R1())
        pem = fresh.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        create_private(path, pem)
    pem = read_private(path, "node key")
    try:
        key = load_ssh_private_key(pem, None)
    except (ValueError, UnsupportedAlgorithm):
        raise NomoatError(f"node key {path} is damaged; leave and join again") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp384r1":
        raise NomoatError(f"node key {path} is not on P-384; leave and join again")
    return key
