"""Issuing and redeeming invitations; the link itself is aggregation/protocol/invitation.py."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from typing import Literal

from nomoat.aggregation.errors import Refused, UsageError
from nomoat.aggregation.protocol.invitation import Claims, Invitation

UNITS_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_LIFE_S = 366 * 86_400
WHY_NOT = {
    "revoked": "was revoked",
    "expired": "has expired; ask for a new one",
    "used up": "is used up; ask for a new one",
}


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """An invitation as the database keeps it. expires: unix seconds."""

    identifier: bytes
    uses: int
    used: int
    expires: int
    revoked: bool

    def state(self, now: int) -> Literal["open", "used up", "expired", "revoked"]:
        """Its state at a unix time; only while it is open does it admit anybody."""
        if self.revoked:
            return "revoked"
        if now >= self.expires:
            return "expired"
        return "open" if self.used < self.uses else "used up"


def parse_duration(text: str) -> int:
    """Seconds in "90m", "36h", "7d" or "2w"; UsageError on anything else."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    seconds = int(found[1]) * UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= MAX_LIFE_S:
        raise UsageError(f"{text!r} is not a duration; write 90m, 36h, 7d or 2w, at most a year")
    return seconds


def redeem(claims: Claims, issue: IssuedInvitation | None, now: int) -> IssuedInvitation:
    """The invitation after one more use; Refused if it is expired, spent, revoked or unknown.

    claims: already checked to be signed by this community.
    """
    if issue is None:
        raise Refused("this invitation is not known here (any more)")
    state = replace(issue, expires=min(issue.expires, claims.expires)).state(now)
    if state != "open":
        raise Refused(f"this invitation {WHY_NOT[state]}")
    return replace(issue, used=issue.used + 1)


def qr_text(invitation: Invitation) -> str:
    """The link as a QR code in terminal characters."""
    import segno

    out = io.StringIO()
    segno.make(invitation.link(), error="l", micro=False).terminal(out, compact=True)
    return out.getvalue()


def qr_svg(invitation: Invitation) -> bytes:
    """The link as a QR code in SVG."""
    import segno

    out = io.BytesIO()
    segno.make(invitation.link(), error="l", micro=False).save(out, kind="svg", scale=4)
    return out.getvalue()
