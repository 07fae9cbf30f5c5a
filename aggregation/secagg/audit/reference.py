"""The slow, readable twin of the sketch: every entry of R written out, in Python's integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nomoat.aggregation.secagg import reference

ROWS = 64
BUCKETS = 1 << 14
COLUMNS = BUCKETS // ROWS


def sketch(values: Sequence[int], seed: bytes, transcript: bytes) -> list[int]:
    """R·v mod 2^32 by its definition (docs/protocol.md §20.3)."""
    stream = reference.keystream(
        reference.hkdf(seed, b"nomoat/secagg/1/audit buckets\0" + transcript)
    )
    after = _bits(stream, BUCKETS)
    total = [0] * ROWS
    for start in range(0, len(values), BUCKETS):
        minus, first = _bits(stream, BUCKETS), next(stream) % BUCKETS
        for place, value in enumerate(values[start : start + BUCKETS]):
            p, c = divmod((first + place) % BUCKETS, COLUMNS)
            for row in range(ROWS):
                parity = (row & p).bit_count() + minus[place] + after[row * COLUMNS + c]
                total[row] += -value if parity % 2 else value
    return [entry % 2**32 for entry in total]


def _bits(words: Iterator[int], count: int) -> list[int]:
    """The next `count` bits of a keystream, the lowest of each word first."""
    found: list[int] = []
    while len(found) < count:
        word = next(words)
        found += [word >> i & 1 for i in range(32)]
    return found
