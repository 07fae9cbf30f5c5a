"""Shares of a sum's noise: each volunteer adds one, so that those who are honest make enough.

A sum has at least `survivors` volunteers, of whom at most c collude and know their own shares; the
other h make noise of variance z²·Δ² together if each adds z²·Δ²/h. Δ is the bound on an update in
units of the ring: updates are scaled down so far that rounding cannot take them beyond it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.thresholds import Assumptions, thresholds

VALUE_BITS = 14  # the noise is far coarser than a value's last bit
LEAST_UNITS = 10.0  # below, rounding a share would be seen (§21.3)
SPREAD = 8.0  # standard deviations that a coordinate of a sum's noise may reach


@dataclass(frozen=True, slots=True)
class NoiseShare:
    """One volunteer's share: standard deviation in units of the ring."""

    units: float

    def spread(self, participants: int) -> float:
        """The most that the noise of so many volunteers makes of a coordinate, in units."""
        return SPREAD * self.units * math.sqrt(participants)


def with_noise(offer: SessionOffer, noise_multiplier: float) -> SessionOffer:
    """The same offer with noise in its sum; LocalProtocolError if it has no bound to go by."""
    asked = replace(offer, value_bits=VALUE_BITS, noise_multiplier=noise_multiplier)
    if not can_be_noisy(asked):
        raise LocalProtocolError("noise needs one bound on updates and one on values, and no audit")
    return asked


def can_be_noisy(offer: SessionOffer) -> bool:
    """Return True if the offer's updates have a bound that noise can be measured by."""
    return offer.clip_l2 > 0 and len(set(offer.clips)) == 1 and not offer.audit_kind


def share_of(offer: SessionOffer, participants: int, limit: int) -> NoiseShare:
    """The share that a volunteer adds in a session of so many. limit: L, that clips map to."""
    if not offer.noise_multiplier:
        return NoiseShare(0.0)
    needed = thresholds(participants, Assumptions(offer.corrupt_permille, offer.dropout_permille))
    honest = max(1, needed.survivors - needed.corrupt)
    bound = offer.clip_l2 / offer.clips[0] * limit
    units = offer.noise_multiplier * bound / math.sqrt(honest)
    if units < LEAST_UNITS:
        raise LocalProtocolError(f"a share of noise of {units:.2g} units is too fine for the ring")
    return NoiseShare(units)


def room_for_rounding(offer: SessionOffer, length: int, limit: int) -> float:
    """The factor that an update within the bound is scaled by, so that it is when it is rounded.

    Rounding moves each of `length` coordinates by less than a unit, and a vector by less than
    √length. LocalProtocolError if that is half of the bound.
    """
    share = math.sqrt(length) / (offer.clip_l2 / offer.clips[0] * limit)
    if share > 0.5:
        raise LocalProtocolError("the bound on updates is too fine for the ring")
    return 1.0 - share
