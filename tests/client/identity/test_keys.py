"""Keys are made once, kept private, and refused in one line when something is wrong with them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nomoat.aggregation.errors import NomoatError
from nomoat.client.identity.keys import identity, load_identity, node_key


def test_an_identity_is_made_once_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "home" / "identity.key"
    first = identity(path, lambda n: b"\5" * n)
    again = identity(path, lambda _: pytest.fail("asked for new randomness"))
    assert first.public == again.public
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["identity.key"]  # nothing left behind


def test_a_node_key_is_made_once_in_flowers_format(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    first = node_key(path)
    assert path.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert node_key(path).private_numbers() == first.private_numbers()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    for path, load in (
        (tmp_path / "identity.key", lambda p: identity(p, os.urandom)),
        (tmp_path / "node.key", node_key),
    ):
        load(path)
        os.chmod(path, mode)
        with pytest.raises(NomoatError, match=rf"chmod 600 {path}") as caught:
            load(path)
        assert "\n" not in str(caught.value)
        os.chmod(path, 0o600)
        load(path)


def test_a_damaged_or_missing_key_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "identity.key"
    with pytest.raises(NomoatError, match="missing"):
        load_identity(path)
    identity(path, os.urandom)
    for junk in (b"", b"zz" * 32, b"\xff\xfe", b"00" * 31):
        path.write_bytes(junk)
        with pytest.raises(NomoatError, match="damaged"):
            load_identity(path)
    other = tmp_path / "node.key"
    node_key(other)
    other.write_bytes(other.read_bytes()[:100])
    with pytest.raises(NomoatError, match="damaged"):
        node_key(other)


def test_a_node_key_of_another_curve_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(NomoatError, match="P-384"):
        node_key(path)
