"""The terms of an audit in an offer: what makes one possible, and the bits that it takes."""

from __future__ import annotations

import math
from dataclasses import replace

from nomoat.aggregation.secagg import labels
from nomoat.aggregation.secagg.audit.judgement import NormTest, bits_needed
from nomoat.aggregation.secagg.audit.sketch import WORDS
from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.noise.shares import share_of
from nomoat.aggregation.sums.fixed_point import FixedPoint

KIND = 65  # of audits; 1 to 64 were the words of sketches without buckets
VALUE_BITS = 14  # leaves room for a sketch in about the bits that a sum of 21-bit values takes
LEAST_VALUE_BITS = 12  # a step of 2^-11 of a value's clip: a thousandth of an update's norm
USUAL_BITS = 21  # of a value without an audit
LEAST_VALUES = 16 * WORDS  # of an update that honest volunteers let be sketched (§20.7)
SPARE_BITS = 3  # beyond a sum's: what a sketch mod 2^b cannot see is then no possible sum (§20.6)


def commit(seed: bytes) -> bytes:
    """Return the commitment that binds a coordinator to an audit's seed, 32 bytes."""
    return labels.tagged_hash(labels.COMMIT_AUDIT, seed)


def can_audit(offer: SessionOffer) -> bool:
    """Return True if the offer's updates have one bound on their norm and one on all values."""
    if not offer.clip_l2 > 0 or len(set(offer.clips)) != 1:
        return False
    return _bits(offer, offer.n_max) <= 32


def audited(offer: SessionOffer, seed: bytes) -> SessionOffer:
    """The same offer with an audit under this seed (32 bytes nobody else knows), if it can be.

    A value has as many bits, from 14 down to 12, as leave a coordinate no longer than it was.
    """
    asked = replace(offer, audit_kind=KIND, audit_commit=commit(seed))
    for value_bits in range(VALUE_BITS, LEAST_VALUE_BITS - 1, -1):
        asked = replace(asked, value_bits=value_bits)
        if _bits(asked, offer.n_max) <= USUAL_BITS + (offer.n_max - 1).bit_length():
            break
    return asked if can_audit(asked) else offer


def point_of(offer: SessionOffer, participants: int) -> FixedPoint:
    """The fixed point of a session: coordinates that a sketch, or a sum's noise, fits into."""
    least = _bits(offer, participants) if offer.audit_kind else 0
    plain = FixedPoint(offer.value_bits, participants, least)
    if not offer.noise_multiplier:
        return plain
    return replace(plain, spread=share_of(offer, participants, plain.limit).spread(participants))


def norm_test(offer: SessionOffer, participants: int, length: int) -> NormTest:
    """The test that an update of `length` coordinates has to pass by its sketch.

    Rounding to the ring adds at most ¼ a coordinate to the square of a norm within the bound;
    without that room a coordinator could offer a bound that no honest update keeps to.
    """
    point = point_of(offer, participants)
    limit = math.hypot(_ratio(offer) * point.limit, math.sqrt(length) / 2)
    return NormTest(limit, point.wire_bits)


def _ratio(offer: SessionOffer) -> float:
    return offer.clip_l2 / offer.clips[0]


def _bits(offer: SessionOffer, participants: int) -> int:
    sums = offer.value_bits + (participants - 1).bit_length() + SPARE_BITS
    return max(sums, bits_needed(_ratio(offer), offer.value_bits))
