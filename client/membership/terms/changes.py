"""Changes between what an owner agreed to and an edition of the terms, old → new. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nomoat.aggregation.protocol.community.terms import TermsEdition
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.client.membership.agreement import Agreement


@dataclass(frozen=True, slots=True)
class TermsChange:
    """One change in words. asked: it is beyond what was agreed to, so the owner's word is needed.

    weakens: it is about protection, which is accepted by its own name.
    """

    words: str
    asked: bool
    weakens: bool = False


def changes(
    agreed: Agreement, info: CommunityInfo, edition: TermsEdition, fewest: int
) -> tuple[TermsChange, ...]:
    """Compare; empty if nothing changes.

    fewest: participants that the owner's own settings ask for, 0 for none: among so many, a lower
    minimum of the community's changes nothing for this owner.
    """
    return (*_of_protection(info, edition, fewest), *_of_work(agreed, edition))


def _of_protection(info: CommunityInfo, edition: TermsEdition, fewest: int) -> list[TermsChange]:
    found = []
    if info.secure != edition.secure:
        old, new = ("masked", "in the open") if info.secure else ("in the open", "masked")
        weaker = info.secure
        found.append(TermsChange(f"updates {old} -> {new}", weaker, weaker))
    if info.min_participants != edition.least and edition.secure:
        lower = edition.least < info.min_participants
        asked = lower and not fewest >= info.min_participants
        words = f"participants of a sum at least {info.min_participants} -> {edition.least}"
        found.append(TermsChange(words, asked, asked))
    return found


def _of_work(agreed: Agreement, edition: TermsEdition) -> list[TermsChange]:
    new = Agreement.signed(edition.work)
    passes = bool(new.epochs)
    figures = (
        ("passes over your rows" if passes else "steps a round",
         agreed.epochs if passes else agreed.steps, new.epochs if passes else new.steps),
        ("tokens a step", agreed.tokens_per_step, new.tokens_per_step),
        ("trainings a round", agreed.trainings, new.trainings),
        ("values in the adapter", agreed.adapter_values, new.adapter_values),
        ("learning rate", agreed.learning_rate, new.learning_rate),
        ("rounds a day", agreed.rounds_per_day, new.rounds_per_day),
    )  # fmt: skip
    found = [
        TermsChange(f"{name} {old:g} -> {now:g}", now > agreed.at_most(old))
        for name, old, now in figures
        if old != now
    ]
    if new.batch_size != agreed.batch_size:
        fewer = new.batch_size * (100 + agreed.room_percent) < agreed.batch_size * 100
        words = f"rows a step {agreed.batch_size} -> {new.batch_size}"
        found.append(TermsChange(words, fewer))
    return found


def in_a_line(edition: TermsEdition, found: tuple[TermsChange, ...]) -> str:
    """Say what changes, on one line."""
    return f"edition {edition.number} of the terms: " + "; ".join(each.words for each in found)
