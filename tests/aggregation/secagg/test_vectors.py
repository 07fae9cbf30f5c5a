"""Every primitive gives the answers that its standard prints, and so does the slow twin."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg import labels, reference
from nomoat.aggregation.secagg.masks import keys, shamir
from nomoat.aggregation.secagg.masks.prg import Keystream, Masks
from nomoat.aggregation.secagg.thresholds import Assumptions, thresholds
from nomoat.aggregation.sums.packing import BLOCK

VECTORS = Path(__file__).parents[2] / "vectors"


def load(name: str) -> list[dict]:
    found = json.loads((VECTORS / name).read_text())
    assert found["source"]
    return found["vectors"]


def hexed(vector: dict) -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in vector.items()}


@pytest.mark.parametrize("vector", load("x25519_rfc7748.json"))
def test_x25519(vector):
    v = hexed(vector)
    assert keys.agree(v["scalar"], v["u"]) == v["output"]
    assert reference.x25519(v["scalar"], v["u"]) == v["output"]
    if v["u"][0] == 9 and not any(v["u"][1:]):
        assert keys.public_of(v["scalar"]) == v["output"]


@pytest.mark.parametrize("vector", load("hkdf_rfc5869.json"))
def test_hkdf(vector):
    v = hexed(vector)
    assert reference.hkdf(v["ikm"], v["info"]) == v["okm"]
    info = labels.KDF_PAIR_MASK + b"\0" + bytes(32) + bytes(8)
    derived = labels.derive(v["ikm"], labels.KDF_PAIR_MASK, bytes(32), bytes(8))
    assert derived == reference.hkdf(v["ikm"], info)


@pytest.mark.parametrize("vector", load("aes128_ctr_sp800_38a.json"))
def test_aes_ctr_of_the_twin(vector):
    v = hexed(vector)
    keystream = bytes(a ^ b for a, b in zip(v["plaintext"], v["ciphertext"], strict=True))
    words = islice(reference.ctr(v["key"], v["counter"]), len(keystream) // 4)
    assert list(words) == np.frombuffer(keystream, "<u4").tolist()


@pytest.mark.parametrize("vector", load("aes128_gcm_mcgrew_viega.json"))
def test_aes_keystreams_and_masks(vector):
    v = hexed(vector)
    keystream = bytes(a ^ b for a, b in zip(v["plaintext"], v["ciphertext"], strict=True))
    key, count = v["key"] + v["nonce"] + bytes(4), len(keystream) // 4
    assert Keystream(key).words(count).tobytes() == keystream
    assert reference.words(key, count) == np.frombuffer(keystream, "<u4").tolist()
    vector_of_ones = np.ones(count, np.uint32)
    Masks([key], []).apply(vector_of_ones)
    assert (vector_of_ones - np.uint32(1)).tobytes() == keystream


def test_a_long_keystream_read_in_parts_is_one_aes_ctr_stream():
    key, count = bytes(range(32)), 2 * BLOCK + 4
    ctr = Cipher(algorithms.AES(key[:16]), modes.CTR(key[16:28] + bytes((0, 0, 0, 2))))
    expected = ctr.encryptor().update(bytes(4 * count))
    stream = Keystream(key)
    parts = [stream.words(size) for size in (BLOCK, 4, BLOCK)]
    assert b"".join(part.tobytes() for part in parts) == expected


@pytest.mark.parametrize("vector", load("chacha20_poly1305_rfc8439.json"))
def test_chacha20_poly1305(vector):
    v = hexed(vector)
    sealed = ChaCha20Poly1305(v["key"]).encrypt(v["nonce"], v["plaintext"], v["aad"])
    assert sealed == v["ciphertext"] + v["tag"]


@pytest.mark.parametrize("vector", load("ed25519_rfc8032.json"))
def test_ed25519(vector):
    v = hexed(vector)
    assert SigningKey(v["secret"]).public == v["public"]
    signed = Ed25519PrivateKey.from_private_bytes(v["secret"]).sign(v["message"])
    assert signed == v["signature"]


class Chosen:
    """A stream that gives chosen words."""

    def __init__(self, words: list[int]) -> None:
        self._words = words

    def words(self, count: int) -> np.ndarray:
        taken, self._words = self._words[:count], self._words[count:]
        return np.array(taken, np.uint32)


@pytest.mark.parametrize("vector", load("shamir_mersenne31.json"))
def test_shamir(vector):
    polynomial, values = vector["polynomial"], vector["values"]
    higher = [c for coefficient in polynomial[1:] for c in [coefficient, *[0] * 8]]
    secret = polynomial[0].to_bytes(32, "little")
    points = [int(x) for x in values]
    dealt = shamir.split(secret, len(polynomial), points, Chosen(higher))
    assert [int.from_bytes(share[:4], "little") for share in dealt] == list(values.values())
    assert not any(any(share[4:]) for share in dealt)
    some = dict(list(zip(points, dealt, strict=True))[-len(polynomial) :])
    assert shamir.combine(some) == reference.recover(some) == secret


def test_field_elements_skip_the_one_word_that_is_not_of_the_field():
    drawn = [5, 2**31 - 1, 2**32 - 1, 2**31, 2**31 - 2]  # only 31 bits of a word count
    found = shamir.field_elements(Chosen(drawn), 3)
    assert found.tolist() == [5, 0, 2**31 - 2]


@pytest.mark.parametrize("vector", load("thresholds_bell2020.json"), ids=str)
def test_thresholds(vector):
    assumed = Assumptions(vector["corrupt_permille"], vector["dropout_permille"])
    found = thresholds(vector["n"], assumed)
    assert (found.neighbours, found.shares) == (vector["neighbours"], vector["shares"])
