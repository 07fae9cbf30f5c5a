"""k, t and q of a session: how many neighbours, shares and signatures make it safe.

Up to 32 volunteers: everybody is everybody's neighbour, c = ⌊(n−1)/3⌋ may be corrupt and
t = q = ⌈2n/3⌉, which is the smallest q > (n + c)/2. Above: the least even degree for which the
bounds on random neighbourhoods hold (Bell et al. 2020, doi:10.1145/3372297.3417885, and the graph
parameter finder of google-parfait/federated-compute, whose figures the tests reproduce), computed
in integers so that every machine finds the same (docs/protocol.md §17).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb

from nomoat.aggregation.errors import LocalProtocolError

COMPLETE_UP_TO = 32
WEAK_BELOW = 8
DROPOUT_PERMILLE = 300
SECURITY_BITS = 40  # σ: probability of a privacy failure ≤ 2^−σ
CORRECTNESS_BITS = 20  # η: probability that an honest session cannot be unmasked ≤ 2^−η


@dataclass(frozen=True, slots=True)
class Assumptions:
    """The fractions of a session that may be corrupt (γ) and may drop out (δ), in thousandths."""

    corrupt_permille: int
    dropout_permille: int


BORNE_UP_TO = 128  # participants, of whom nearly a third may be corrupt; above, as many as of 128
MOST_PERMILLE, LEAST_PERMILLE = 310, 100


def assume(participants: int) -> Assumptions:
    """The assumptions of a session of at most that many: as many corrupt as neighbours are cheap.

    Without, c would fall from 10 of 32, where everybody is everybody's neighbour, to 3 of 33.
    """
    if participants <= COMPLETE_UP_TO:
        return Assumptions(LEAST_PERMILLE, DROPOUT_PERMILLE)
    fair = MOST_PERMILLE * BORNE_UP_TO // participants
    return Assumptions(max(LEAST_PERMILLE, min(MOST_PERMILLE, fair)), DROPOUT_PERMILLE)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The numbers of one session of n volunteers."""

    neighbours: int  # k
    shares: int  # t: this many recover a secret
    quorum: int  # q: this many sign a survivor set before anything is revealed
    survivors: int  # fewer volunteers than this are never summed
    alive: int  # fewer neighbours than this among the survivors, and a volunteer reveals nothing
    corrupt: int  # c: this many may collude with the coordinator


def is_weak(participants: int) -> bool:
    """True if a session is so small that it must be asked for and labelled "weak"."""
    return participants < WEAK_BELOW


@lru_cache(maxsize=64)
def thresholds(participants: int, assumed: Assumptions) -> Thresholds:
    """The thresholds of a session of `participants`; LocalProtocolError if none are safe."""
    n = participants
    if n < 2:
        raise LocalProtocolError("a sum of fewer than two volunteers hides nobody")
    corrupt = n * assumed.corrupt_permille // 1000
    if n <= COMPLETE_UP_TO:
        return _complete(n, corrupt)
    survivors = n - n * assumed.dropout_permille // 1000
    quorum = (n + corrupt) // 2 + 1
    if quorum > survivors or survivors <= corrupt:
        raise LocalProtocolError(
            f"no quorum of {n} volunteers outlives {assumed.dropout_permille}‰ dropouts "
            f"with {assumed.corrupt_permille}‰ corrupt"
        )
    degree = _smallest_degree(n, corrupt, survivors)
    if degree is None:
        return _complete(n, corrupt)
    return Thresholds(degree[0], degree[1], quorum, survivors, degree[2], corrupt)


def _complete(n: int, corrupt: int) -> Thresholds:
    """Everybody knows everybody: t = q = ⌈2n/3⌉ against c = ⌊(n−1)/3⌋, without any chance in it."""
    bearable = (n - 1) // 3
    if corrupt > bearable:
        raise LocalProtocolError(f"{n} volunteers bear {bearable} corrupt ones, not {corrupt}")
    enough = -(-2 * n // 3)
    return Thresholds(n - 1, enough, enough, enough, enough - 1, bearable)


def _smallest_degree(n: int, corrupt: int, survivors: int) -> tuple[int, int, int] | None:
    """Least even k, with t and the most neighbours one may insist on; None if only n − 1 is safe.

    A coordinator that chooses who drops out can cut the ring, whatever k is. What it cannot do is
    cut off fewer than that many neighbours together (§17.4).
    """
    for k in range(2, n - 1, 2):
        if not _stays_connected(n, k, corrupt + n - survivors):
            continue
        shares = max(2, _most_corrupt_neighbours(n, k, corrupt) + 1)
        alive = _surely_alive(n, k, survivors)
        if alive >= shares:
            return k, shares, alive
    return None


def _stays_connected(n: int, k: int, gone: int) -> bool:
    """n(n−k−1)/2 · C(B,k)/C(n,k) < 2^−(σ+1), B the corrupt and the dropped together.

    Cutting the ring takes two gaps of k/2 seats each, all of them gone.
    """
    return n * (n - k - 1) * comb(gone, k) << SECURITY_BITS < comb(n, k)


def _most_corrupt_neighbours(n: int, k: int, corrupt: int) -> int:
    """Least a with P[more than a of k neighbours are corrupt] ≤ 2^−(σ+1) / n."""
    total = comb(n, k)
    beyond = 0
    for a in range(min(k, corrupt), -1, -1):
        beyond += comb(corrupt, a) * comb(n - corrupt, k - a)
        if beyond * n << (SECURITY_BITS + 1) > total:
            return a
    return 0


def _surely_alive(n: int, k: int, survivors: int) -> int:
    """Most a with P[fewer than a of k neighbours survive] ≤ 2^−η / n."""
    total = comb(n, k)
    fewer = 0
    for a in range(k + 1):
        fewer += comb(survivors, a) * comb(n - survivors, k - a)
        if fewer * n << CORRECTNESS_BITS > total:
            return a
    return k
