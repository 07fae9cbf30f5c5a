"""Volunteers and invitations as the community's database has them."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.plain_text import one_line
from nomoat.aggregation.protocol.community.spoken import in_words
from nomoat.aggregation.protocol.enrolment import Standing, fingerprint
from nomoat.aggregation.protocol.invitation import Claims
from nomoat.aggregation.protocol.roster import Event
from nomoat.desk.coordinator.round_book import TakenPart
from nomoat.desk.watching.events import CommunityEvent
from nomoat.server.community import certificates
from nomoat.server.community.database import Database
from nomoat.server.community.invites import parse_duration, qr_svg
from nomoat.server.community.membership_rules import Applicant
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.conduct.cases import MAY_APPEAL, Cases
from nomoat.server.conduct.suspicions import suspicions
from nomoat.server.rounds.suspicion import claims
from nomoat.server.state_file import FILE, TOLD, read_state, said_by

ORDERS: Final[Mapping[str, Event]] = {
    "approve": Event.RELEASE,
    "hold": Event.HOLD,
    "ban": Event.BAN,
    "remove": Event.LEAVE,
}
OFFERED: Final[Mapping[Standing, tuple[str, ...]]] = {
    Standing.PENDING: ("approve", "ban"),
    Standing.APPROVED: ("hold", "ban", "remove"),
    Standing.HELD: ("approve", "ban", "remove"),
    Standing.BANNED: ("approve",),
    Standing.LEFT: ("ban",),
}
MOST_USES: Final = 10_000


@dataclass(frozen=True)
class VolunteerRow:
    """One volunteer. rounds: in whose sum it was; last: the newest of them. offered: orders.

    appeal: its answer to a hold or a ban. evidence: pieces that anybody can recompute. seen: unix
    time when it was there last. software: what it runs, if it shows that. protocol: the version
    that is used with it, and which it speaks. misfits: in words, of its losses. suspicion: of
    spoiling sums, and how often such a sentence is wrong.
    """

    name: str
    standing: str
    reason: str
    key: str
    online: bool
    rounds: int
    last: int | None
    offered: tuple[str, ...]
    appeal: str = ""
    evidence: int = 0
    seen: int | None = None
    software: str = ""
    protocol: str = ""
    misfits: str = ""
    suspicion: str = ""


def volunteer_rows(
    community: OpenCommunity, taken_part: Mapping[str, TakenPart], online: Collection[str]
) -> tuple[VolunteerRow, ...]:
    """Everyone who ever enrolled: those who wait first, then by name."""
    nothing, cases = TakenPart(0, 0), Cases(community.registrar.database)
    suspected = suspicions(community.registrar.database)
    state = read_state(community.folder.root / FILE)
    software, spoken = (said_by(community.folder.root / FILE, what) for what in TOLD)
    rows = [
        VolunteerRow(
            applicant.binding.name,
            applicant.standing.value,
            applicant.reason,
            fingerprint(applicant.binding.identity),
            applicant.binding.name in online,
            taken_part.get(applicant.binding.name, nothing).rounds,
            taken_part.get(applicant.binding.name, nothing).last or None,
            OFFERED.get(applicant.standing, ()),
            _appeal(cases, applicant),
            cases.count(applicant.binding.name) if applicant.standing in MAY_APPEAL else 0,
            _seen(state, applicant.binding.name),
            one_line(software.get(applicant.binding.name, "")),
            in_words(spoken.get(applicant.binding.name)),
            claims.in_words(taken_part.get(applicant.binding.name, nothing).misfits),
            suspected.get(applicant.binding.name, ""),
        )
        for applicant in community.registrar.database.applicants()
    ]
    return tuple(sorted(rows, key=lambda row: (row.standing != Standing.PENDING.value, row.name)))


def _seen(state: Mapping[str, Any], name: str) -> int | None:
    """The time a volunteer was there last, as `up` has written it."""
    seen = state.get("seen")
    at = seen.get(name) if isinstance(seen, dict) else None
    return at if isinstance(at, int) else None


def _appeal(cases: Cases, applicant: Applicant) -> str:
    if applicant.standing not in MAY_APPEAL:
        return ""
    found = cases.appeal_of(applicant.binding.name)
    return "" if found is None else one_line(found.text)


def order(community: OpenCommunity, form: Mapping[str, str], now: int) -> str:
    """Give an order about a volunteer; a sentence that says where it stands now."""
    name, event = form.get("name", ""), ORDERS.get(form.get("order", ""))
    if event is None:
        raise UsageError("there is no such order")
    reason = form.get("reason", "").strip()
    if len(reason) > 200:
        raise UsageError("a reason has 200 characters at most")
    standing = community.registrar.order(name, event, reason, now)
    return f"{name} is {standing.value}."


def named(store: Database, events: Iterable[CommunityEvent]) -> tuple[CommunityEvent, ...]:
    """The events, with the name and reason that the roster's entry has where one is of it."""
    return tuple(_named(store, event) for event in events)


def _named(store: Database, event: CommunityEvent) -> CommunityEvent:
    index = event.fields.get("entry")
    if not event.name.startswith("volunteer.") or not isinstance(index, int) or index < 0:
        return event
    found = store.roster_entries(index, 1)
    if not found or found[0].entry.index != index:
        return event
    said = found[0].entry
    return replace(event, fields={**event.fields, "volunteer": said.name, "reason": said.reason})


@dataclass(frozen=True)
class InvitationRow:
    """An invitation that was issued. open: somebody may still join with it."""

    identifier: str
    state: str
    used: int
    uses: int
    expires: float
    open: bool


def invitation_rows(community: OpenCommunity, now: int) -> tuple[InvitationRow, ...]:
    """Every invitation, the last to expire first."""
    return tuple(
        InvitationRow(
            issued.identifier.hex(),
            issued.state(now),
            issued.used,
            issued.uses,
            issued.expires,
            issued.state(now) == "open",
        )
        for issued in community.registrar.database.invitations()
    )


@dataclass(frozen=True)
class FreshInvitation:
    """An invitation as it is shown once. picture: its QR code, SVG. only_here: it leads nowhere
    else.
    """

    link: str
    picture: str
    uses: int
    expires: float
    only_here: bool


def invite(community: OpenCommunity, form: Mapping[str, str]) -> FreshInvitation:
    """Issue the invitation that a form asks for; UsageError if it cannot be."""
    text = form.get("uses", "1").strip()
    if not text.isdecimal() or not 1 <= int(text) <= MOST_USES:
        raise UsageError(f"uses: give a number from 1 to {MOST_USES}")
    address = certificates.canonical(community.settings.server.address)
    expires = int(time.time()) + parse_duration(form.get("expires", "7d"))
    authority = community.folder.authority_certificate.read_bytes()
    claims = Claims(
        address,
        certificates.fingerprint(authority),
        community.registrar.key.public,
        os.urandom(16),
        int(text),
        expires,
    )
    issued = community.registrar.invite(claims)
    picture = qr_svg(issued).decode()
    return FreshInvitation(
        issued.link(), picture, int(text), expires, certificates.only_here(address)
    )
