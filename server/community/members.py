"""The registrar: invitations, enrolments and orders about volunteers, one transaction each."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, UsageError
from nomoat.aggregation.protocol import invitation, roster, wire
from nomoat.aggregation.protocol.enrolment import (
    Binding,
    Enrol,
    Enrolled,
    Standing,
    answer,
    check_binding,
    check_proof,
    enrolling,
)
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys, KeyChange
from nomoat.aggregation.protocol.invitation import Claims, Invitation
from nomoat.aggregation.protocol.receipts import SignedReceipt
from nomoat.aggregation.protocol.receipts import check as check_receipt
from nomoat.aggregation.protocol.roster import Event, Page, Roster
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.server.community.database import Database
from nomoat.server.community.invites import IssuedInvitation, redeem
from nomoat.server.community.membership_rules import (
    Admission,
    Applicant,
    admit,
    check_name,
    event_for,
    known_already,
    returns,
)
from nomoat.server.engines.engine import DatabaseFault

PEER = "applicant"
LEFT_HELD = "left while it was held: "


@dataclass
class Registrar:
    """Admits volunteers to one community and keeps its roster. `key` is the community's.

    changes: those of its key so far. check_unchanged: raises if there was another one meanwhile.
    followed: somebody asks for the roster again and again (roster_watch.py).
    """

    database: Database
    key: SigningKey
    admission: Admission
    changes: tuple[KeyChange, ...] = ()
    check_unchanged: Callable[[], None] = lambda: None
    followed: bool = False

    def __post_init__(self) -> None:
        self.keys = CommunityKeys.of(self.key.public, self.changes)
        self._roster = Roster.empty(self.keys)
        self._verifying = threading.Lock()

    def invite(self, claims: Claims) -> Invitation:
        """Issue an invitation and remember it."""
        with self.database.transaction():
            issue = IssuedInvitation(claims.identifier, claims.uses, 0, claims.expires, False)
            self.database.put_invitation(issue)
        return invitation.issue(claims, self.key)

    def revoke(self, identifier: str) -> IssuedInvitation:
        """Make an invitation worthless, and return it.

        identifier: in hex, or the beginning of it. UsageError if it is no invitation's, or more
        than one's.
        """
        with self.database.transaction():
            found = [
                issued
                for issued in self.database.invitations()
                if identifier and issued.identifier.hex().startswith(identifier.lower())
            ]
            if len(found) != 1:
                which = "more than one invitation begins with" if found else "no invitation has id"
                raise UsageError(f"{which} {identifier!r}; see: nomoat invite DIR --list")
            revoked = replace(found[0], revoked=True)
            self.database.put_invitation(revoked)
        return revoked

    def revoke_of(self, name: str) -> tuple[IssuedInvitation, list[str]]:
        """Make the invitation worthless that a volunteer came by; it, and who else came by it.

        UsageError if that was not written down: it joined under a release before this.
        """
        with self.database.transaction():
            came_by = self.database.invitations_of()
            if name not in came_by:
                raise UsageError(f"which invitation {name} came by was not written down")
            others = [one for one, by in came_by.items() if by == came_by[name] and one != name]
            return self.revoke(came_by[name].hex()), sorted(others)

    def enrol(self, request: bytes, now: int, proof: str = "") -> Enrolled:
        """Answer an enrolment: the volunteer's standing, signed.

        proof: that the request was made just now by whom it speaks of; needed to come back, since
        a member's binding is known to all members. Strangers without a good invitation hear
        nothing of anybody's name. Raises Refused (a person can act on it) or RemoteProtocolError
        (malformed or forged).
        """
        packet = wire.Packet(request)
        wanted = wire.decode(packet, Enrol, PEER)
        check_binding(wanted.binding, self.keys.founding)
        try:
            check_name(wanted.binding.name)
        except UsageError as problem:
            raise Refused(str(problem)) from None
        with self.database.transaction():
            known = self.database.known(wanted.binding)
            if known.by_identity is None:
                if not wanted.invitation:
                    raise Refused("this volunteer is not enrolled; join with an invitation")
                self._redeemed(wanted.invitation, now)
            found = known_already(known, wanted.binding)
            if found is not None and wanted.invitation and returns(found, wanted.binding):
                self._check_return(proof, request, wanted.binding, now)
                found = None
            found = found or self._admit(wanted, now)
        self._follow()
        return answer(packet, found.standing, found.reason, self.key)

    def mend(self, now: int) -> list[str]:
        """Set standings that are not those of the roster, which is signed, to those; whose."""
        with self.database.transaction():
            members = self.roster().members
            wrong = [
                applicant
                for applicant in self.database.applicants()
                if (member := members.get(applicant.binding.name)) is not None
                and applicant.standing is not member.standing
            ]
            for applicant in wrong:
                member = members[applicant.binding.name]
                self.database.put_applicant(
                    Applicant(applicant.binding, member.standing, member.reason), now
                )
        return [applicant.binding.name for applicant in wrong]

    def order(self, name: str, event: Event, reason: str, now: int) -> Standing:
        """Approve, hold, release or ban a volunteer, or note that it left; its new standing."""
        with self.database.transaction():
            known = self.database.applicant(name)
            if known is None:
                raise UsageError(f"no volunteer is called {name}; see: nomoat volunteers list")
            event = event_for(known.standing, event)
            standing = self._append(event, known.binding, reason, now)
            self.database.put_applicant(Applicant(known.binding, standing, reason), now)
        self._follow()
        return standing

    def known(self) -> Roster:
        """Return the roster that calls are judged by: as it stands, or as it was followed last."""
        return self._roster if self.followed else self.roster()

    def roster(self) -> Roster:
        """The roster as it stands now, whoever wrote it; verified once per entry."""
        known = self._roster  # requests come in threads: read once, never go back
        length = self.database.roster_length()
        if length < known.length:
            raise NomoatError(
                "the roster in the database became shorter; bring a backup back with nomoat restore"
            )
        if length == known.length:
            return known
        added = self.database.roster_entries(known.length)
        with self._verifying:  # one of the threads that are waiting for it; no other lock in here
            so_far = self._roster
            self._roster = roster.extend(so_far, added[so_far.length - known.length :])
            return self._roster

    def leave(self, identity: bytes, now: int) -> Standing:
        """A volunteer leaves by its own wish (its proof was checked)."""
        member = self.roster().named(identity)
        if member is None:
            raise Refused("this volunteer is not in the roster")
        if member.standing in (Standing.LEFT, Standing.BANNED):
            return member.standing
        held = member.standing is Standing.HELD
        reason = f"{LEFT_HELD}{member.reason}"[:200] if held else "left by its own wish"
        return self.order(member.binding.name, Event.LEAVE, reason, now)

    def take_back(self, given: Iterable[SignedReceipt], identity: bytes) -> None:
        """Keep receipts that a volunteer still has, and that a backup put back has not.

        RemoteProtocolError at the first that this community did not give to this volunteer.
        """
        checked = [signed for signed in given if check_receipt(signed, self.keys, identity)]
        with self.database.transaction():
            for signed in checked:
                self.database.put_receipt(signed)

    def page(self, start: int) -> Page:
        """Roster entries from `start` for whoever holds the ones before it."""
        with self.database.transaction():
            entries = self.database.roster_entries(start, roster.PAGE)
            return Page(self.database.roster_length(), tuple(entries))

    def _follow(self) -> None:
        """Have `known` hold what was just written."""
        if self.followed and not self.database.in_transaction:
            with contextlib.suppress(DatabaseFault):  # it is written; whoever follows will see it
                self.roster()

    def _admit(self, wanted: Enrol, now: int) -> Applicant:
        invited = self._redeemed(wanted.invitation, now)
        self.database.put_invitation(invited)
        standing, reason = admit(self.admission), ""
        before = self.roster().members.get(wanted.binding.name)
        if standing is Standing.APPROVED:
            self._append(Event.JOIN, wanted.binding, "", now)
        if before is not None and before.reason.startswith(LEFT_HELD):
            # Leaving does not end a hold. A person's approval does, which is also what a pending
            # volunteer waits for.
            reason = before.reason.removeprefix(LEFT_HELD)
            if standing is Standing.APPROVED:
                standing = self._append(Event.HOLD, wanted.binding, reason, now)
        applicant = Applicant(wanted.binding, standing, reason)
        self.database.put_applicant(applicant, now)
        self.database.note_invitation_of(wanted.binding.name, invited.identifier)
        return applicant

    def _check_return(self, proof: str, request: bytes, binding: Binding, now: int) -> None:
        if not proof:
            raise Refused("nomoat on this machine is too old to come back with; upgrade it")
        if check_proof(proof, self.keys.founding, enrolling(request), now) != binding.identity:
            raise RemoteProtocolError(PEER, "§5.3", "comes back in somebody else's name")

    def _redeemed(self, token: bytes, now: int) -> IssuedInvitation:
        """The invitation after one more use, not stored; Refused if it is worth nothing.

        It may be of a key of before: only those that were issued here are worth anything.
        """
        claims = invitation.from_token(token).claims
        if not self.keys.holds(claims.community):
            raise RemoteProtocolError("invitation", "§5", "is for another community")
        return redeem(claims, self.database.invitation(claims.identifier), now)

    def _append(self, event: Event, binding: Binding, reason: str, now: int) -> Standing:
        self.check_unchanged()
        known = self.roster()
        signed = roster.append(known, event, binding, self.key, now, reason)
        self.database.append_roster(signed)
        # The cache moves on only through roster(): a rolled-back append must leave no trace.
        return roster.extend(known, [signed]).members[binding.name].standing
