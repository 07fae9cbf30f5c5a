"""A community at a glance: whether it is up, what its round waits for, who is there.

Read from the folder alone, so that it can be asked while the coordinator is up, or is not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.server.community.folder import Folder
from nomoat.server.community.membership_rules import AgreedTerms
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.community.versions import UNTRAINED
from nomoat.server.rounds.watching import WAITING
from nomoat.server.state_file import FILE, read_state
from nomoat.storage.atomic import held

Presence = Literal["here", "paused", "away", "asked"]
WHY = {"paused": "is paused", "away": "is away", "asked": "has yet to agree to the new terms"}
NAMED = 5  # of those who are missing


@dataclass(frozen=True, slots=True)
class MemberRow:
    """A volunteer. seen: unix time, None if never. rounds: in whose sum it was; last: the newest.

    presence: paused where its owner lets nothing be trained now, asked where it has yet to agree to
    the terms that hold.
    """

    name: str
    standing: str
    reason: str
    presence: Presence
    seen: int | None
    rounds: int
    last: int | None


@dataclass(frozen=True, slots=True)
class CommunityOverview:
    """A community as its operator asks for it. process: None if it is not up.

    answered, asked: of the phase; while a round waits, who is there and how many are needed. at:
    unix time at which the coordinator said so.
    """

    name: str
    folder: Path
    address: str
    process: int | None
    round: int
    rounds: int
    phase: str
    answered: int
    asked: int
    at: int
    version: int
    version_round: int
    loss: float | None
    note: str
    members: tuple[MemberRow, ...]

    def missing(self) -> str | None:
        """Say what a round waits for; None if it does not wait."""
        if self.process is None or self.phase != WAITING or self.answered >= self.asked:
            return None
        away = [row for row in self.members if row.standing == "approved"]
        told = [f"{row.name} {WHY[row.presence]}" for row in away if row.presence != "here"]
        waiting = [f"{row.name} waits for approval" for row in self.members if _pending(row)]
        more = self.asked - self.answered
        who = "; ".join((told + waiting)[:NAMED]) or "nobody else has joined yet: nomoat invite"
        return f"{more} more volunteer{'s' if more > 1 else ''} needed: {who}"

    def as_json(self) -> dict[str, Any]:
        """A JSON-able object."""
        return {**asdict(self), "folder": str(self.folder), "missing": self.missing()}


def _pending(row: MemberRow) -> bool:
    return row.standing == Standing.PENDING.value


def up_process(root: Path) -> int | None:
    """The process that has a community up in this folder; None if none has."""
    folder = Folder(root)
    if not folder.up_lock.exists():
        return None
    try:
        with held(folder.up_lock, "up"):
            return None
    except NomoatError:
        pid = read_state(root / FILE).get("pid")
        return pid if isinstance(pid, int) else None


def overview(community: OpenCommunity) -> CommunityOverview:
    """Look at a community's folder."""
    root, settings = community.folder.root, community.settings
    state = read_state(root / FILE)
    process = up_process(root)
    newest = community.versions.get(None).version
    present = state if process is not None else {}
    return CommunityOverview(
        settings.community.name,
        root,
        settings.server.address,
        process,
        int(state.get("round", 0)),
        settings.rounds.max_rounds,
        str(present.get("phase", "not up")),
        int(present.get("answered", 0)),
        int(present.get("asked", 0)),
        int(state.get("at", 0)),
        newest.number,
        newest.round,
        newest.loss,
        "" if newest.note == UNTRAINED else newest.note,
        tuple(_members(community, state, process is not None)),
    )


def _members(community: OpenCommunity, state: dict[str, Any], up: bool) -> list[MemberRow]:
    """Everyone who ever enrolled, by name."""
    online = set(state.get("online", ())) if up else set()
    paused, seen = set(state.get("paused", ())), state.get("seen", {})
    refusing, behind = _yet_to_agree(community)
    rounds: Counter[str] = Counter()
    last: dict[str, int] = {}
    for signed in community.registrar.database.versions(1):
        rounds.update(signed.version.contributors)
        last.update(dict.fromkeys(signed.version.contributors, signed.version.round))
    rows = []
    for applicant in community.registrar.database.applicants():
        name = applicant.binding.name
        here: Presence = "away"
        if name in online:
            here = "paused" if name in paused else "here"
            if name in refusing or (here == "paused" and name in behind):
                here = "asked"
        rows.append(
            MemberRow(
                name,
                applicant.standing.value,
                applicant.reason,
                here,
                seen.get(name),
                rounds[name],
                last.get(name),
            )
        )
    return sorted(rows, key=lambda row: row.name)


def _yet_to_agree(community: OpenCommunity) -> tuple[frozenset[str], frozenset[str]]:
    """Return members who agreed to stricter terms, and those who have said nothing to the last.

    Who joined under the last, or runs a release that says nothing, is among the latter, too.
    """
    known = community.consents.read(AgreedTerms(secure=False, least=2))
    behind = set()
    for applicant in community.registrar.database.applicants():
        key = hashlib.sha256(applicant.binding.node_key).hexdigest()
        if known.heard.get(key, 0) < known.edition and known.edition > 1:
            behind.add(applicant.binding.name)
    return community.consents.refusing(), frozenset(behind)
