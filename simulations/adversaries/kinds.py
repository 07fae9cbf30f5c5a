"""The ways in which simulated volunteers lie, and who of them does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from nomoat.aggregation.errors import UsageError
from nomoat.server.rounds.cohort import generator


class Attack(StrEnum):
    """One way to lie; the update is the liar's own training's where nothing else is said."""

    BACKDOOR = "backdoor"  # trained to answer a trigger, eight times too large
    ADAPTIVE = "adaptive"  # the same, exactly as large as the bound allows
    EDGE = "edge"  # the same, 1.4 times as large: what one sketch cannot tell from the bound
    WRONG = "wrong"  # trained on others' answers, eight times too large
    SCALED = "scaled"  # honest but for being eight times too large
    SIGN_FLIP = "sign-flip"  # away from what was learnt, eight times too large
    RANDOM = "random"  # a direction of chance, eight times too large
    FREE_RIDER = "free-rider"  # noise as large as an honest update


@dataclass(frozen=True, slots=True)
class Adversary:
    """So large a share of the volunteers lies in this way."""

    kind: Attack
    share: float

    def count(self, volunteers: int) -> int:
        """Return how many of them lie: share · n to the nearest, but one at least."""
        return max(1, round(self.share * volunteers))

    def liars(self, names: Sequence[str], seed: bytes) -> frozenset[str]:
        """Return the liars drawn by `seed`."""
        order = generator(seed).permutation(len(names))
        return frozenset(sorted(names)[i] for i in order[: self.count(len(names))])


def parse(text: str) -> Adversary:
    """KIND:SHARE, as in backdoor:0.2; UsageError for anything else."""
    name, _, share = text.partition(":")
    try:
        found = Adversary(Attack(name), float(share))
    except ValueError:
        found = None
    if found is None or not 0 < found.share <= 0.5:
        kinds = ", ".join(kind.value for kind in Attack)
        raise UsageError(
            f"an adversary is KIND:SHARE with a share up to 0.5, as backdoor:0.2 ({kinds}), "
            f"not {text!r}"
        )
    return found
