"""The slow, readable twin: the arithmetic of a session in plain Python integers, textbook order.

It shares no code with the fast path, only the formats of docs/protocol.md; tests compare the two
bit by bit. Never use it with real secrets: nothing here runs in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

PRIME = 2**31 - 1
LIMBS, LIMB_BITS = 9, 30


def hkdf(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 without salt, 32 bytes. RFC 5869, §2: one step of expansion is enough."""
    extracted = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(extracted, info + b"\x01", hashlib.sha256).digest()


def x25519(scalar: bytes, point: bytes = b"\x09".ljust(32, b"\0")) -> bytes:
    """Montgomery's ladder over 2^255 − 19. RFC 7748, §5."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little")
    k = (k & ~7 & ~(1 << 255)) | (1 << 254)
    u = int.from_bytes(point, "little") % 2**255
    x2, z2, x3, z3 = 1, 0, u, 1
    for bit in reversed(range(255)):
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, e = a * a, b * b, a * a - b * b
        x3, z3 = pow(d * a + c * b, 2, p), u * pow(d * a - c * b, 2, p) % p
        x2, z2 = aa * bb % p, e * (aa + 121665 * e) % p
        if k >> bit & 1:
            x2, z2, x3, z3 = x3, z3, x2, z2
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


def ctr(key: bytes, counter: bytes) -> Iterator[int]:
    """32-bit words of AES-128-CTR, a block at a time. NIST SP 800-38A, section 6.5."""
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block: the oracle of CTR
    count = int.from_bytes(counter, "big")
    while True:
        block = cipher.update(count.to_bytes(16, "big"))
        yield from (int.from_bytes(block[i : i + 4], "little") for i in range(0, 16, 4))
        count = (count + 1) % 2**128


def keystream(key: bytes) -> Iterator[int]:
    """Words of the mask under a 32-byte key (docs/protocol.md §13.2)."""
    return ctr(key[:16], key[16:28] + bytes((0, 0, 0, 2)))


def words(key: bytes, count: int) -> list[int]:
    """The first `count` words of a keystream."""
    stream = keystream(key)
    return [next(stream) for _ in range(count)]


def share(
    secret: bytes, threshold: int, points: Sequence[int], stream: Iterator[int]
) -> list[bytes]:
    """Shares by evaluating each limb's polynomial at each point, term by term."""
    value = int.from_bytes(secret, "little")
    constant = [value >> LIMB_BITS * i & (2**LIMB_BITS - 1) for i in range(LIMBS)]
    drawn = (word & PRIME for word in stream)
    uniform = (element for element in drawn if element != PRIME)
    polynomial = [constant, *([next(uniform) for _ in range(LIMBS)] for _ in range(threshold - 1))]
    return [
        b"".join(
            (sum(row[i] * x**power for power, row in enumerate(polynomial)) % PRIME).to_bytes(
                4, "little"
            )
            for i in range(LIMBS)
        )
        for x in points
    ]


def recover(shares: Mapping[int, bytes]) -> bytes:
    """Lagrange's formula at 0, limb by limb, with Python's integers."""
    total = 0
    for limb in range(LIMBS):
        value = 0
        for xi, share_i in shares.items():
            term = int.from_bytes(share_i[4 * limb : 4 * limb + 4], "little")
            for xj in shares:
                if xj != xi:
                    term = term * xj * pow(xj - xi, -1, PRIME) % PRIME
            value = (value + term) % PRIME
        total += value << LIMB_BITS * limb
    return total.to_bytes(32, "little")


def neighbours(count: int, degree: int, transcript: bytes) -> list[set[int]]:
    """The ring: sort volunteers by 64 random bits; k/2 seats either way are neighbours."""
    drawn = words(hkdf(transcript, b"nomoat/secagg/1/neighbour graph\0"), 2 * count)
    order = sorted(range(count), key=lambda i: drawn[2 * i] + (drawn[2 * i + 1] << 32))
    found: list[set[int]] = [set() for _ in range(count)]
    for seat, volunteer in enumerate(order):
        for distance in range(1, count):
            if min(distance, count - distance) <= (degree + 1) // 2:
                found[volunteer].add(order[(seat + distance) % count])
    return found


def pack(values: Sequence[int], bits: int) -> bytes:
    """One block, as planes of 32, 16, 8, 4, 2 and 1 bits (docs/protocol.md §16.4)."""
    padded = [*values, *[0] * (-len(values) % 8)]
    packed, shift = b"", 0
    for width in (32, 16, 8, 4, 2, 1):
        if not bits & width:
            continue
        parts = [value >> shift & (2**width - 1) for value in padded]
        shift += width
        if width >= 8:
            packed += b"".join(part.to_bytes(width // 8, "little") for part in parts)
            continue
        columns = len(parts) * width // 8
        for column in range(columns):
            chosen = parts[column::columns]
            packed += bytes([sum(part << width * i for i, part in enumerate(chosen))])
    return packed


@dataclass(frozen=True)
class Party:
    """A volunteer: its index, its 32 bytes of entropy, and its ring integers."""

    index: int
    entropy: bytes
    values: tuple[int, ...]

    def secret(self, purpose: str) -> bytes:
        """One of the secrets that come from the entropy."""
        return hkdf(self.entropy, b"nomoat/secagg/1/" + purpose.encode() + b"\0")


def pair_key(private: bytes, public: bytes, transcript: bytes, ends: tuple[int, int]) -> bytes:
    """Key of a pairwise mask."""
    where = b"".join(end.to_bytes(4, "big") for end in sorted(ends))
    return hkdf(x25519(private, public), b"nomoat/secagg/1/pairwise mask\0" + transcript + where)


def self_key(seed: bytes, transcript: bytes, index: int) -> bytes:
    """Key of a self mask."""
    return hkdf(seed, b"nomoat/secagg/1/self mask\0" + transcript + index.to_bytes(4, "big"))


def masked(party: Party, peers: Mapping[int, bytes], transcript: bytes, bits: int) -> list[int]:
    """y of one party; peers: index → public mask key of its neighbours in U2."""
    length = len(party.values)
    own = words(self_key(party.secret("self-mask seed"), transcript, party.index), length)
    total = [value + mask for value, mask in zip(party.values, own, strict=True)]
    for other, public in peers.items():
        private = party.secret("mask private key")
        key = pair_key(private, public, transcript, (party.index, other))
        sign = 1 if party.index < other else -1
        total = [value + sign * mask for value, mask in zip(total, words(key, length), strict=True)]
    return [value % 2**bits for value in total]


def unmasked(
    vectors: Mapping[int, Sequence[int]],
    seeds: Mapping[int, bytes],
    dropouts: Mapping[int, tuple[bytes, Mapping[int, bytes]]],
    transcript: bytes,
    bits: int,
) -> list[int]:
    """The sum of `vectors` (by survivor) without masks.

    seeds: survivor → its self-mask seed. dropouts: index → (its mask private key, the public mask
    keys of its surviving neighbours).
    """
    total = [sum(column) for column in zip(*vectors.values(), strict=True)]
    length = len(total)
    for index, seed in seeds.items():
        own = words(self_key(seed, transcript, index), length)
        total = [value - mask for value, mask in zip(total, own, strict=True)]
    for index, (private, publics) in dropouts.items():
        for other, public in publics.items():
            mask = words(pair_key(private, public, transcript, (index, other)), length)
            sign = 1 if other < index else -1  # what `other` added, now taken away
            total = [value - sign * m for value, m in zip(total, mask, strict=True)]
    return [value % 2**bits for value in total]
