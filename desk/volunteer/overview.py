"""The first page's view: what this volunteer does, why, and what its owner has ordered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine import owner_orders
from nomoat.client.membership.consent_sheet import protection, protection_now
from nomoat.client.sent.log_file import SentLog
from nomoat.client.volunteer.status import VolunteerStatus, activity, paused, read_status, running

SENTENCES: Final = {
    "working": "Working: {}.",
    "waiting": "Not training: {}.",
    "connecting": "Not training: {}.",
    "paused": "Paused {}.",
    "refused": "Refused: {}.",
    "stopped": "Not running: {}.",
}
ERRANDS: Final = (
    ("train.", "training the adapter on your rows"),
    ("evaluate.", "measuring an adapter on the rows you hold out"),
    ("query.", "taking part in this round's sum"),
)
LIGHTS: Final = {"working": "good", "refused": "bad", "stopped": "off", "paused": "off"}


@dataclass(frozen=True)
class CommunityLink:
    """A community this machine has joined."""

    identifier: str
    name: str
    chosen: bool


@dataclass(frozen=True)
class OverviewView:
    """The activity of a volunteer in one community. light: good, wait, bad or off.

    sentence: state and reason. since: unix seconds. losses: of the community's adapter on the rows
    kept here, and with this volunteer's own part.
    """

    identifier: str
    name: str
    light: str
    sentence: str
    since: float | None
    paused: bool
    finishing: bool
    running: bool
    protection: str
    rounds: int
    late: int
    sent_bytes: int
    version: int | None
    loss: float | None
    own_loss: float | None
    complaint: str | None
    data_note: str | None


def overview(folder: CommunityFolder, now: datetime) -> OverviewView:
    """Look at one community's files, as `nomoat status` does."""
    status, alive = read_status(folder), running(folder)
    orders = owner_orders.read(folder.root)
    doing = activity(status, orders, alive, now)
    known = status or VolunteerStatus(0, "stopped", "", now.timestamp())
    return OverviewView(
        identifier=folder.root.name,
        name=folder.name(),
        light=LIGHTS.get(doing.doing, "wait"),
        sentence=SENTENCES.get(doing.doing, "{}.").format(_in_words(doing.why)),
        since=status.since if status is not None and alive else None,
        paused=paused(orders, now),
        finishing=doing.finishing,
        running=alive,
        protection=_protection(folder),
        rounds=known.rounds,
        late=known.late,
        sent_bytes=known.sent_bytes,
        version=known.version,
        loss=known.loss,
        own_loss=known.own_loss,
        complaint=known.complaint,
        data_note=known.data,
    )


def _in_words(why: str) -> str:
    """A reason as it is; a message that is answered by what that means."""
    return next((words for kind, words in ERRANDS if why.startswith(kind)), why)


def _protection(folder: CommunityFolder) -> str:
    info = folder.info()
    try:
        return protection_now(info, SentLog(folder.root).check().entries)
    except NomoatError as problem:
        return f"{protection(info)}; {problem}"
