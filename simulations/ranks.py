"""Ranks of simulated volunteers: a list that goes round, or shares of the volunteers."""

from __future__ import annotations

import hashlib

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.messages import MAX_RANK
from nomoat.server.rounds.cohort import generator


def parse(text: str) -> dict[int, float | None]:
    """{rank: share, or None in a list without shares}; UsageError for anything else."""
    found: dict[int, float | None] = {}
    shares = ":" in text
    for part in text.split(","):
        rank, _, share = part.strip().partition(":")
        try:
            found[int(rank)] = float(share) if shares else None
        except ValueError:
            raise _refusal(text) from None
    given = [share for share in found.values() if share is not None]
    if any(not 1 <= rank <= MAX_RANK for rank in found) or any(not 0 < x <= 1 for x in given):
        raise _refusal(text)
    if shares and not 0.999 <= sum(given) <= 1.001:
        raise UsageError(f"--ranks {text!r}: the shares add up to {sum(given):g}, not 1")
    return found


def most(text: str) -> int:
    """The largest rank in `text`."""
    return max(parse(text))


def ranks_of(text: str | None, volunteers: int, rank: int, seed: int) -> tuple[int, ...]:
    """The rank of each of the volunteers, in their order.

    A list goes round and may name a rank twice ("4,4,16"). Shares are met as nearly as whole
    volunteers allow (largest remainders), and who gets which is drawn from the seed.
    """
    if text is None:
        return (rank,) * volunteers
    parsed = parse(text)
    if ":" not in text:
        listed = [int(part) for part in text.split(",")]
        return tuple(listed[i % len(listed)] for i in range(volunteers))
    exact = {r: (share or 0.0) * volunteers for r, share in parsed.items()}
    counts = {r: int(x) for r, x in exact.items()}
    left = sorted(exact, key=lambda r: (counts[r] - exact[r], r))
    for r in left[: volunteers - sum(counts.values())]:
        counts[r] += 1
    dealt = [r for r in sorted(counts) for _ in range(counts[r])]
    label = hashlib.sha256(f"nomoat ranks {seed}".encode()).digest()
    return tuple(dealt[i] for i in generator(label).permutation(volunteers))


def _refusal(text: str) -> UsageError:
    return UsageError(
        f"--ranks {text!r}: give ranks such as 4,8,16 (they go round the volunteers) or shares "
        f"such as 4:0.5,8:0.3,16:0.2; ranks are 1 to {MAX_RANK}"
    )
