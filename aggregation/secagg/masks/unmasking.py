"""From revealed shares back to the keys of the masks that are still in the sum (§15.4, §15.5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.aggregation.secagg.masks import keys, shamir
from nomoat.aggregation.secagg.masks.masking import MaskKeys, pair_mask_key, self_mask_key
from nomoat.aggregation.secagg.masks.shares import commit_seed
from nomoat.aggregation.secagg.messages import Participant


class BadDealer(Exception):
    """Committed shares of `index` do not make its secret: it dealt them wrongly."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


@dataclass(frozen=True, slots=True)
class Published:
    """The public part of a session: T, members, commitments to the self-mask seeds."""

    transcript: bytes
    members: tuple[Participant, ...]
    seed_commitments: Mapping[int, bytes]


def recover_seed(published: Published, index: int, shares: Mapping[int, bytes]) -> bytes:
    """The self-mask seed of `index` from t shares (point → share); BadDealer if it is not."""
    seed = _combine(index, shares)
    expected = published.seed_commitments[index]
    if commit_seed(published.transcript, index, seed) != expected:
        raise BadDealer(index)
    return seed


def recover_mask_key(published: Published, index: int, shares: Mapping[int, bytes]) -> bytes:
    """The mask private key of `index` from t shares (point → share); BadDealer if it is not."""
    private = _combine(index, shares)
    if keys.public_of(private) != published.members[index].mask_key:
        raise BadDealer(index)
    return private


def masks_of_survivor(published: Published, index: int, seed: bytes) -> MaskKeys:
    """The self mask to take out."""
    return MaskKeys((), (self_mask_key(seed, published.transcript, index),))


def pair_keys(
    published: Published, index: int, private: bytes, neighbours: frozenset[int]
) -> dict[tuple[int, int], bytes]:
    """Key of the mask of every pair of `index` and one of these, from its mask private key."""
    agree = keys.agreement(private)
    return {
        (index, other): pair_mask_key(
            agree(published.members[other].mask_key), published.transcript, index, other
        )
        for other in neighbours
    }


def masks_of_dropout(
    published: Published, index: int, private: bytes, neighbours: frozenset[int]
) -> MaskKeys:
    """The masks that surviving neighbours put on towards a dropout, with the opposite sign."""
    add: list[bytes] = []
    subtract: list[bytes] = []
    agree = keys.agreement(private)
    for other in sorted(neighbours):
        agreed = agree(published.members[other].mask_key)
        key = pair_mask_key(agreed, published.transcript, index, other)
        (subtract if index > other else add).append(key)
    return MaskKeys(tuple(add), tuple(subtract))


def _combine(index: int, shares: Mapping[int, bytes]) -> bytes:
    try:
        return shamir.combine(shares)
    except shamir.BadShares:
        raise BadDealer(index) from None
