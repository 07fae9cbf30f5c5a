"""Rows to volunteers: by a field, evenly, or skewed by a Dirichlet draw. Pure and seeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nomoat.lora.data import conversations
from nomoat.lora.data.conversations import Conversation

Shards = Mapping[str, tuple[Conversation, ...]]


def by_field(rows: Sequence[Conversation], field: str, most: int | None) -> Shards:
    """One volunteer per value of `field`; the `most` with the most rows, if given.

    BadData if no row has the field; rows without it belong to nobody.
    """
    shards = conversations.by_field(rows, field)
    largest = sorted(shards, key=lambda name: (-len(shards[name]), name))[:most]
    return {name: shards[name] for name in sorted(largest)}


def iid(rows: Sequence[Conversation], volunteers: int, rng: np.random.Generator) -> Shards:
    """Shuffle, then deal into equal parts."""
    order = rng.permutation(len(rows))
    parts = np.array_split(order, volunteers)
    return {name: _pick(rows, part) for name, part in zip(names(volunteers), parts, strict=True)}


def dirichlet(
    rows: Sequence[Conversation],
    labels: Sequence[str],
    volunteers: int,
    alpha: float,
    rng: np.random.Generator,
) -> Shards:
    """For each label, share its rows out by p ~ Dirichlet(α): small α, skewed volunteers.

    With a single label this skews sizes only. Hsu et al. 2019 (arXiv:1909.06335), §2.
    """
    parts: list[list[int]] = [[] for _ in range(volunteers)]
    for label in sorted(set(labels)):
        mine = np.array([i for i, found in enumerate(labels) if found == label])
        rng.shuffle(mine)
        shares = rng.dirichlet(np.full(volunteers, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(mine)).round().astype(int)
        for part, chunk in zip(parts, np.split(mine, cuts), strict=True):
            part.extend(chunk.tolist())
    shards = {
        name: _pick(rows, np.sort(np.array(part, int)))
        for name, part in zip(names(volunteers), parts, strict=True)
    }
    return {name: shard for name, shard in shards.items() if shard}


def names(volunteers: int) -> list[str]:
    """volunteer-00 …, as many digits as needed, so that names sort as numbers do."""
    width = max(2, len(str(volunteers - 1)))
    return [f"volunteer-{i:0{width}d}" for i in range(volunteers)]


def split(
    shard: Sequence[Conversation], held_out: float, most: int, rng: np.random.Generator
) -> tuple[tuple[Conversation, ...], tuple[Conversation, ...]]:
    """(training rows, held-out rows): a seeded draw, at least one row each, held-out ≤ `most`.

    Rows beyond `most` that were drawn as held out are used for neither: none of them may leak.
    """
    order = rng.permutation(len(shard))
    count = min(max(1, round(held_out * len(shard))), len(shard) - 1)
    return _pick(shard, np.sort(order[count:])), _pick(shard, np.sort(order[:count][:most]))


def _pick(rows: Sequence[Conversation], indices: NDArray[np.int_]) -> tuple[Conversation, ...]:
    return tuple(rows[i] for i in indices)
