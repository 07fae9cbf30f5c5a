"""Modules of an adapter that enough participants have trained, so that a sum hides each (§11.7).

With mixed ranks not everybody trains every module. What one volunteer alone has trained would
stand in the sum as it is. So participants sign which modules they trained, and each leaves out of
its vector what too few others have trained. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.parameters import agreed_thresholds

Modules = frozenset[int]  # of an adapter, from 0
Members = frozenset[int]  # of a session, by index


def modules_of(bitmap: bytes) -> Modules:
    """Return the modules that a bitmap lists, module 0 the lowest bit of the first byte."""
    bits = int.from_bytes(bitmap, "little")
    return frozenset(i for i in range(8 * len(bitmap)) if bits >> i & 1)


def tiers(trained: Sequence[bytes], own: int) -> dict[int, Members]:
    """Module → who has trained it, for the modules that participant `own` has.

    trained: each participant's bitmap, by index.
    """
    each = {bitmap: modules_of(bitmap) for bitmap in set(trained)}
    return {module: _tier(module, trained, each) for module in each[trained[own]]}


def all_tiers(trained: Sequence[bytes]) -> frozenset[Members]:
    """Every set of participants who have trained some one module."""
    each = {bitmap: modules_of(bitmap) for bitmap in set(trained)}
    modules = frozenset[int]().union(*each.values())
    return frozenset(_tier(module, trained, each) for module in modules)


def _tier(module: int, trained: Sequence[bytes], each: Mapping[bytes, Modules]) -> Members:
    return frozenset(i for i, bitmap in enumerate(trained) if module in each[bitmap])


def enough(offer: SessionOffer, tier: Members, alive: Members) -> bool:
    """Return True if those of a tier who are alive hide each other as a whole session's do.

    The tier has as many as the offer asks for, and of it survive as many as of a session of them.
    """
    if len(tier) < offer.n_each:
        return False
    try:
        return len(tier & alive) >= agreed_thresholds(offer, len(tier)).survivors
    except LocalProtocolError:  # no thresholds bear what is assumed of so few
        return False
