"""The ledger: strikes are written down with the members' standing, and judged after each round."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.roster import Event
from nomoat.server.community.members import Registrar
from nomoat.server.conduct.cases import Cases
from nomoat.server.conduct.rules import REMEMBERED_ROUNDS, Judgement, Strike, StrikeKind, judge
from nomoat.server.conduct.sizes import above
from nomoat.server.rounds.machines.evidence import RoundEvidence

log = logging.getLogger(__name__)

AUTOMATIC = "by the coordinator: "  # begins the reason of a hold that no person ordered


@dataclass(frozen=True)
class ConductLedger:
    """Strikes in the community's database. A hold, and its release, is an entry of the roster.

    Whoever is approved again, by a person, begins anew: strikes from before that do not count, but
    for those that anybody can recompute.
    """

    registrar: Registrar

    def judge(self, number: int, evidence: RoundEvidence, now: int) -> dict[str, str]:
        """Judge a round that has ended; volunteer → reason of whoever is held from now on."""
        store = self.registrar.database
        with store.transaction():
            store.forget_strikes(number - REMEMBERED_ROUNDS, StrikeKind.PROVEN.value)
            for name in sorted(evidence.heard):
                store.forgive(name, StrikeKind.SILENCE.value)
            judged = judge(number, evidence, self.counting())
            for strike in judged.strikes:
                # A round may be tried again under its number, and be met with silence again.
                about = str(now) if strike.kind is StrikeKind.SILENCE else strike.about
                store.put_strike(strike.round, strike.kind.value, strike.volunteer, about, now)
            self._keep(number, evidence, now)
            self._release(judged, now)
            wanted = {**self._above_the_bound(number, evidence, now), **judged.held}
            held = self._put_out(wanted, Event.HOLD, now)
            return held | self._put_out(judged.banned, Event.BAN, now)

    def counting(self) -> list[Strike]:
        """The strikes that count now."""
        members = self.registrar.roster().members
        return [
            Strike(number, StrikeKind(kind), name, about)
            for number, kind, name, about, at in self.registrar.database.strikes()
            if name in members
            and (
                kind == StrikeKind.PROVEN
                or members[name].standing is not Standing.APPROVED
                or at > members[name].since
            )
        ]

    def _keep(self, number: int, evidence: RoundEvidence, now: int) -> None:
        """Keep what anybody can recompute; its digest is in the reason, and so in the roster."""
        cases = Cases(self.registrar.database)
        for session in evidence.sessions:
            for name, data in session.proofs.items():
                cases.keep(name, number, data, now)

    def _above_the_bound(self, number: int, evidence: RoundEvidence, now: int) -> dict[str, str]:
        """Note sizes; who is above the bound in its last rounds together, since its approval."""
        cases, members = Cases(self.registrar.database), self.registrar.roster().members
        found = {}
        for session in evidence.sessions:
            cases.note_sizes(number, session.sizes, now)
            for name in session.sizes.keys() & members.keys():
                if (excess := above(cases.sizes_of(name, members[name].since))) is not None:
                    found[name] = f"{excess} (round {number})"
        return found

    def _put_out(self, wanted: Mapping[str, str], event: Event, now: int) -> dict[str, str]:
        done = {}
        for name, reason in sorted(wanted.items()):
            try:
                standing = self.registrar.order(name, event, (AUTOMATIC + reason)[:200], now)
            except UsageError:  # it has left, or is held or banned already
                continue
            done[name] = reason
            log.warning("%s is %s: %s", name, standing.value, reason)
        return done

    def _release(self, judged: Judgement, now: int) -> None:
        """Let those in again who were held for complaints that were right."""
        members = self.registrar.roster().members
        for name, reason in sorted(judged.released.items()):
            member = members[name]
            if member.standing is Standing.HELD and member.reason.startswith(AUTOMATIC):
                self.registrar.order(name, Event.RELEASE, (AUTOMATIC + reason)[:200], now)
                log.warning("%s is approved again: %s", name, reason)
