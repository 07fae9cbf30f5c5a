from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nomoat.aggregation.errors import BadData, UsageError
from nomoat.client.identity.recovery import MAGIC, Cost, phrase, seal, seed_of, unseal

FAST = Cost(log_n=10)
SALT, NONCE = b"s" * 16, b"n" * 12
PASSPHRASE = "correct horse battery"

# BIP-39's own vectors: https://github.com/trezor/python-mnemonic/blob/master/vectors.json
VECTORS = [
    ("00" * 32, "abandon " * 23 + "art"),
    ("7f" * 32, "legal winner thank year wave sausage worth useful " * 2
     + "legal winner thank year wave sausage worth title"),
    ("80" * 32, "letter advice cage absurd amount doctor acoustic avoid " * 2
     + "letter advice cage absurd amount doctor acoustic bless"),
    ("ff" * 32, "zoo " * 23 + "vote"),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "words"), VECTORS)
def test_published_vectors(seed: str, words: str) -> None:
    assert phrase(bytes.fromhex(seed)) == words
    assert seed_of(words) == bytes.fromhex(seed)


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_a_phrase_gives_its_seed_back_however_it_was_written_down(seed: bytes) -> None:
    words = phrase(seed).split()
    assert seed_of(" ".join(words)) == seed
    numbered = "\n".join(f"{n}. {w.upper()}" for n, w in enumerate(words, 1))
    assert seed_of(numbered) == seed
    assert seed_of(", ".join(w[:4] for w in words)) == seed


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.integers(0, 22))
def test_two_swapped_words_are_found_or_change_nothing(seed: bytes, place: int) -> None:
    words = phrase(seed).split()
    words[place], words[place + 1] = words[place + 1], words[place]
    try:
        found = seed_of(" ".join(words))
    except BadData:
        return
    # one in 256 passes an 8-bit checksum; it is never taken for the same identity
    assert (found == seed) == (words == phrase(seed).split())


def test_swapping_is_mostly_found() -> None:
    caught = 0
    for number in range(200):
        words = phrase(bytes([number]) + bytes(range(31))).split()
        words[0], words[1] = words[1], words[0]
        try:
            seed_of(" ".join(words))
        except BadData:
            caught += 1
    assert caught > 180


def test_a_misspelt_word_is_named_with_its_neighbours() -> None:
    words = phrase(bytes(32)).split()
    words[6] = "abondon"
    with pytest.raises(BadData, match=r"word 7, 'abondon', is not in the list"):
        seed_of(" ".join(words))
    words[6] = "abanden"
    with pytest.raises(BadData, match="did you mean abandon"):
        seed_of(" ".join(words))


@pytest.mark.parametrize("words", ["", "abandon", "abandon " * 12, "abandon " * 25])
def test_a_phrase_of_another_length_is_refused(words: str) -> None:
    with pytest.raises(BadData, match="24 words"):
        seed_of(words)


def test_a_seed_of_another_length_is_refused() -> None:
    with pytest.raises(UsageError):
        phrase(b"short")


def test_a_sealed_identity_opens_with_its_passphrase_only() -> None:
    file = seal(b"secret", PASSPHRASE, SALT, NONCE, FAST)
    assert unseal(file, PASSPHRASE) == b"secret"
    assert b"secret" not in file
    with pytest.raises(BadData, match="wrong passphrase"):
        unseal(file, PASSPHRASE + "!")


def test_a_passphrase_is_the_same_however_its_accents_were_typed() -> None:
    file = seal(b"secret", "caf\u00e9 caf\u00e9 x", SALT, NONCE, FAST)
    assert unseal(file, "cafe\u0301 cafe\u0301 x") == b"secret"


def test_every_changed_byte_is_found() -> None:
    file = seal(b"secret", PASSPHRASE, SALT, NONCE, FAST)
    for place in range(len(file)):
        changed = file[:place] + bytes([file[place] ^ 1]) + file[place + 1 :]
        with pytest.raises(BadData):
            unseal(changed, PASSPHRASE)


def test_a_file_cut_anywhere_is_refused() -> None:
    file = seal(b"secret", PASSPHRASE, SALT, NONCE, FAST)
    for size in range(len(file)):
        with pytest.raises(BadData):
            unseal(file[:size], PASSPHRASE)


@pytest.mark.parametrize("cost", [(63, 8, 1), (21, 8, 1), (17, 255, 1), (17, 8, 255), (0, 8, 1)])
def test_a_forged_cost_is_refused_before_it_takes_memory(cost: tuple[int, int, int]) -> None:
    file = seal(b"secret", PASSPHRASE, SALT, NONCE, FAST)
    forged = MAGIC + bytes(cost) + file[len(MAGIC) + 3 :]
    with pytest.raises(BadData, match="unreasonable"):
        unseal(forged, PASSPHRASE)


def test_a_short_passphrase_and_reused_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 10"):
        seal(b"secret", "short", SALT, NONCE, FAST)
    with pytest.raises(UsageError, match="16 bytes of salt"):
        seal(b"secret", PASSPHRASE, b"", NONCE, FAST)


def test_the_default_cost_is_128_mib_of_scrypt() -> None:
    cost = Cost()
    assert 128 * cost.r * (1 << cost.log_n) == 128 << 20
