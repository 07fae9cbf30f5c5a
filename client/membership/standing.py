"""A volunteer's standing with its community as it is told: why it is out, and what it can do.

    appeal.json     the appeal that was sent last, and when

What somebody is held for names evidence where there is some; that is fetched from the coordinator,
checked against the roster, and computed again here (docs/protocol.md §20.9).
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError, UsageError
from nomoat.aggregation.plain_text import lines
from nomoat.aggregation.protocol import roster as log
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.history.appeal import MOST_CHARACTERS
from nomoat.aggregation.secagg.audit.evidence import ProvenLie, finding, from_bytes
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import CoordinatorClient, extend_roster
from nomoat.client.connection.https import NotServed
from nomoat.client.home import CommunityFolder
from nomoat.client.membership.roster_file import RosterFile
from nomoat.storage.private import write_private

FILE = "appeal.json"
ANSWER = "nomoat appeal answers it"
EVIDENCE = re.compile(r"evidence ([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class SentAppeal:
    """The appeal that was sent last. at: unix time."""

    text: str
    at: float


def explained(standing: Standing, reason: str) -> str:
    """Say that this volunteer is out, why, and what its owner can do."""
    because = f": {reason}" if reason else ""
    if standing not in (Standing.HELD, Standing.BANNED):
        return f"{standing.value} by the coordinator{because}"
    check = "nomoat evidence recomputes that here; " if EVIDENCE.search(reason) else ""
    return f"{standing.value}{because}. {check}{ANSWER}"


def appeal(folder: CommunityFolder, coordinator: CoordinatorClient, text: str) -> None:
    """Send an appeal and note it; Refused if this volunteer is neither held nor banned."""
    said = lines(text).strip()
    if not said or len(said) > MOST_CHARACTERS:
        raise UsageError(f"an appeal has 1 to {MOST_CHARACTERS} characters, not {len(said)}")
    now = time.time()
    try:
        coordinator_api.appeal(coordinator, said, int(now))
    except NotServed:
        raise NomoatError("this coordinator takes no appeals; write to its owner") from None
    content = json.dumps({"text": said, "at": now}).encode()
    write_private(folder.root / FILE, content)


def last_appeal(folder: CommunityFolder) -> SentAppeal | None:
    """The appeal that was sent last, if one was."""
    try:
        return SentAppeal(**json.loads((folder.root / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def recomputed(folder: CommunityFolder, coordinator: CoordinatorClient, name: str) -> ProvenLie:
    """Recompute why `name` is out; NomoatError if there is no evidence, or it shows nothing.

    The reason is that of the roster, which this machine verifies, and so is the accused's key.
    """
    now = int(time.time())
    kept = RosterFile(folder.root).entries()
    known = log.extend(log.Roster.empty(coordinator.keys), kept)
    roster, _ = extend_roster(coordinator, known, now)
    member = roster.members.get(name)
    if member is None:
        raise UsageError(f"the roster has nobody called {name}")
    named = EVIDENCE.search(member.reason)
    if named is None:
        why = f" ({member.reason})" if member.reason else ""
        raise NomoatError(f"{name} is {member.standing.value}{why}: the roster names no evidence")
    data = coordinator_api.evidence(coordinator, bytes.fromhex(named[1]), now)
    found = finding(from_bytes(data, "the evidence"))
    if found.accused != member.binding.identity:
        raise RemoteProtocolError("the evidence", "§20.9", f"is about somebody else than {name}")
    return found


def of_file(path: Path) -> ProvenLie:
    """Recompute what the evidence in a file shows; NomoatError if it shows nothing."""
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise UsageError(f"{path}: {problem.strerror}") from None
    return finding(from_bytes(data, str(path)))
