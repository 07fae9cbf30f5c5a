"""Suspicion in words for people, never without how often such words are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nomoat.server.rounds.records import RoundRecord
from nomoat.server.rounds.suspicion.cohorts import REMEMBERED, suspicion_of
from nomoat.server.rounds.suspicion.posterior import BY_ITSELF, NAMED, named_by_chance


def told(records: Iterable[RoundRecord]) -> Mapping[str, str]:
    """Volunteer → a sentence, for those who more likely spoil sums than not."""
    found = suspicion_of(records)
    return {
        name: in_words(probability, len(found.probabilities), name in found.set_aside)
        for name, probability in found.suspects.items()
    }


def in_words(probability: float, count: int, set_aside: bool) -> str:
    """Say how likely one of `count` volunteers spoils sums, and how often that is wrong."""
    doing = "is not asked any more" if set_aside else f"is asked until that is {NAMED:.1%}"
    return (
        f"spoils the sums it is in with a probability of {min(probability, NAMED):.1%}"
        f"{' or more' if probability >= NAMED else ''} and {doing}; by chance that comes to an "
        f"honest one once in {1 / named_by_chance(count):,.0f} stretches of {REMEMBERED} rounds at "
        f"most, and one in {1 / (1 - NAMED):,.0f} of those who are not asked is honest, as far as "
        f"honest sums fail once in {1 / BY_ITSELF:.0f}: evidence, and no proof"
    )
