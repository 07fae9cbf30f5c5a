"""Deciding who is left out of the next rounds, without I/O (docs/protocol.md §12.5, §15.5).

What a volunteer signed and cannot be is proof. Where anybody can recompute it (an audit's evidence)
it holds at once, and the second time, whatever was decided about the first, it bans. A complaint is
none: either the accuser or the accused lies, and nobody but those two can tell. But at most c
participants of a session are corrupt, so whoever is at odds with more than c others is the one that
lies; who complains again and again, and no one else with it, is taken for it after the second time.
Should its complaints turn out to have been right it is let in again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nomoat.aggregation.secagg.audit.evidence import digest_of
from nomoat.server.rounds.machines.evidence import RoundEvidence, SessionEvidence

WRONG_ANSWERS = 2  # that cost nobody a round
COMPLAINTS = 2  # rounds with a complaint that nothing bears out
SILENCES = 3  # in a row
REMEMBERED_ROUNDS = 100
NAMED = 3  # in a reason


class StrikeKind(StrEnum):
    """The kinds of strike."""

    WRONG = "wrong"
    COMPLAINT = "complaint"
    AT_ODDS = "at odds"  # with more than can be corrupt
    SILENCE = "silence"
    PROVEN = "proven"  # with evidence that anybody can recompute


@dataclass(frozen=True, slots=True)
class Strike:
    """A line of the ledger. about: whom it complained about, or what it did."""

    round: int
    kind: StrikeKind
    volunteer: str
    about: str = ""

    def __str__(self) -> str:
        said = {
            StrikeKind.WRONG: self.about,
            StrikeKind.COMPLAINT: f"complained about {self.about}'s shares",
            StrikeKind.AT_ODDS: self.about,
            StrikeKind.SILENCE: "did not answer",
            StrikeKind.PROVEN: self.about,
        }
        return f"{said[self.kind]} (round {self.round})"


@dataclass(frozen=True)
class Judgement:
    """The consequences of a round: volunteer → reason, which everybody may read."""

    strikes: tuple[Strike, ...] = ()
    held: Mapping[str, str] = field(default_factory=dict)
    banned: Mapping[str, str] = field(default_factory=dict)
    released: Mapping[str, str] = field(default_factory=dict)


def judge(number: int, evidence: RoundEvidence, past: Collection[Strike]) -> Judgement:
    """Judge round `number`. past: the strikes that still count."""
    proofs = [strike for session in evidence.sessions for strike in _proofs(number, session)]
    proven = {
        s.volunteer
        for s in (*past, *proofs)
        if s.kind in (StrikeKind.WRONG, StrikeKind.AT_ODDS, StrikeKind.PROVEN)
    }
    complaints = [
        Strike(number, StrikeKind.COMPLAINT, accuser, accused)
        for session in evidence.sessions
        for accuser, all_accused in session.complaints.items()
        for accused in all_accused
        if accuser not in proven
    ]
    counted = [s for s in past if s.kind is StrikeKind.COMPLAINT and s.volunteer not in proven]
    counted += complaints
    proofs += _outnumbered(number, counted, proven, evidence.sessions)
    proven |= {strike.volunteer for strike in proofs}
    silences = [Strike(number, StrikeKind.SILENCE, name) for name in sorted(evidence.silent)]
    held = _held_for_proofs(proofs, past, evidence.sessions)
    held |= _held_for_complaints(counted, proven) | _held_for_silence(silences, past)
    banned = _banned(number, proofs, past)
    held = {name: why for name, why in held.items() if name not in banned}
    cleared = _cleared(counted, proven, held)
    return Judgement((*proofs, *complaints, *silences), held, banned, cleared)


def _proofs(number: int, session: SessionEvidence) -> list[Strike]:
    wrong = [
        Strike(number, StrikeKind.PROVEN, name, f"{did}; evidence {_digest(session, name)}")
        if name in session.proofs
        else Strike(number, StrikeKind.WRONG, name, did)
        for name, did in sorted(session.wrong.items())
    ]
    accused, accusers = dict(session.complaints), defaultdict[str, list[str]](list)
    for accuser, against in session.complaints.items():
        for one in against:
            accusers[one].append(accuser)
    for name in sorted(accused.keys() | accusers.keys()):
        about, by = accused.get(name, ()), accusers.get(name, [])
        if len({*about, *by}) > max(1, session.bearable):
            side = (
                f"{len(by)} volunteers complained about its shares"
                if len(by) >= len(about)
                else f"complained about the shares of {len(about)} volunteers"
            )
            wrong.append(Strike(number, StrikeKind.AT_ODDS, name, side))
    return wrong


def _outnumbered(
    number: int,
    complaints: Collection[Strike],
    proven: Collection[str],
    sessions: Sequence[SessionEvidence],
) -> list[Strike]:
    """Proofs from several rounds: more have complained about one than can be corrupt."""
    bearable = max((1, *(session.bearable for session in sessions)))
    accusers = defaultdict[str, set[str]](set)
    for strike in complaints:
        accusers[strike.about].add(strike.volunteer)
    return [
        Strike(
            number, StrikeKind.AT_ODDS, name, f"{len(by)} volunteers complained about its shares"
        )
        for name, by in sorted(accusers.items())
        if len(by) > bearable and name not in proven
    ]


def _held_for_proofs(
    proofs: Collection[Strike], past: Collection[Strike], sessions: Sequence[SessionEvidence]
) -> dict[str, str]:
    """At once if it cost a round, and where the complaints of others prove it; else after two."""
    ruined = {name for session in sessions if session.failed for name in session.wrong}
    wrong_before = {s.volunteer for s in past if s.kind is StrikeKind.WRONG}
    return {
        strike.volunteer: str(strike)
        for strike in reversed(list(proofs))
        if strike.kind in (StrikeKind.AT_ODDS, StrikeKind.PROVEN)
        or strike.volunteer in ruined | wrong_before
    }


def _banned(number: int, proofs: Collection[Strike], past: Collection[Strike]) -> dict[str, str]:
    """Return those of whom a lie was proven in an earlier round, too."""
    before = {s.volunteer for s in past if s.kind is StrikeKind.PROVEN and s.round != number}
    return {
        strike.volunteer: f"a second time: {strike}"
        for strike in proofs
        if strike.kind is StrikeKind.PROVEN and strike.volunteer in before
    }


def _digest(session: SessionEvidence, name: str) -> str:
    return digest_of(session.proofs[name]).hex()


def _held_for_complaints(complaints: Collection[Strike], proven: Collection[str]) -> dict[str, str]:
    rounds, about = defaultdict[str, set[int]](set), defaultdict[str, set[str]](set)
    for strike in complaints:
        if strike.about not in proven and strike.volunteer not in proven:
            rounds[strike.volunteer].add(strike.round)
            about[strike.volunteer].add(strike.about)
    return {
        name: f"complained about the shares of {_names(about[name])} in {len(found)} rounds, "
        f"which nothing bears out (last: {max(found)})"
        for name, found in rounds.items()
        if len(found) >= COMPLAINTS
    }


def _held_for_silence(silences: Collection[Strike], past: Collection[Strike]) -> dict[str, str]:
    before = [s.volunteer for s in past if s.kind is StrikeKind.SILENCE]
    return {
        strike.volunteer: f"did not answer {SILENCES} times in a row (last: round {strike.round})"
        for strike in silences
        if before.count(strike.volunteer) + 1 >= SILENCES
    }


def _cleared(
    complaints: Collection[Strike], proven: Collection[str], held: Mapping[str, str]
) -> dict[str, str]:
    """Return those whose complaints have all been borne out, if it was held for one."""
    about = defaultdict[str, set[str]](set)
    for strike in complaints:
        about[strike.volunteer].add(strike.about)
    return {
        name: f"its complaints about {_names(accused)} were borne out"
        for name, accused in about.items()
        if accused <= set(proven) and name not in proven and name not in held
    }


def _names(names: Collection[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:NAMED]) + (", …" if len(listed) > NAMED else "")
