"""The first page's view: what this volunteer does, why, and what its owner has ordered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine import owner_orders
from nomoat.client.membership.consent_sheet import protection, protection_now
from nomoat.client.membership.standing import ANSWER, EVIDENCE, SentAppeal, last_appeal
from nomoat.client.sent.log_file import SentLog
from nomoat.client.volunteer.measurements import Measurements, read_measurements
from nomoat.client.volunteer.status import (
    Activity,
    VolunteerStatus,
    activity,
    in_words,
    paused,
    read_status,
    running,
)

SENTENCES: Final = {
    "working": "Working: {}.",
    "waiting": "Not training: {}.",
    "connecting": "Not training: {}.",
    "paused": "Paused {}.",
    "refused": "Refused: {}.",
    "stopped": "Not running: {}.",
}
TRAINING: Final = "train.local"
LIGHTS: Final = {"working": "good", "refused": "bad", "stopped": "off", "paused": "off"}


@dataclass(frozen=True)
class CommunityLink:
    """A community this machine has joined."""

    identifier: str
    name: str
    chosen: bool


@dataclass(frozen=True)
class TrainingView:
    """The training under way. left_s: seconds to go, as far as its pace tells."""

    step: int
    steps: int
    loss: float
    left_s: float | None


@dataclass(frozen=True)
class MachineView:
    """The machine's sensors, as they were read last; None: it has none."""

    temperature_c: float | None
    power_w: float | None
    vram_share: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class OwnCase:
    """A hold or ban that can be answered. proven: it names evidence. appeal: the last one sent."""

    proven: bool
    appeal: SentAppeal | None


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
    training: TrainingView | None
    machine: MachineView | None
    case: OwnCase | None


def overview(folder: CommunityFolder, now: datetime) -> OverviewView:
    """Look at one community's files, as `nomoat status` does."""
    status, alive = read_status(folder), running(folder)
    measured = read_measurements(folder, now.timestamp())
    orders = owner_orders.read(folder.root)
    doing = activity(status, orders, alive, now)
    known = status or VolunteerStatus(0, "stopped", "", now.timestamp())
    return OverviewView(
        identifier=folder.root.name,
        name=folder.name(),
        light=LIGHTS.get(doing.doing, "wait"),
        sentence=SENTENCES.get(doing.doing, "{}.").format(in_words(doing.why)),
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
        training=_training(status, measured) if alive else None,
        machine=_machine(measured) if alive else None,
        case=_case(folder, doing),
    )


def _training(status: VolunteerStatus | None, measured: Measurements | None) -> TrainingView | None:
    """The training, if one is under way and was heard of lately."""
    if status is None or (status.doing, status.why) != ("working", TRAINING) or measured is None:
        return None
    known = measured.step, measured.steps, measured.loss, measured.step_at
    step, steps, loss, at = known
    if step is None or steps is None or loss is None or at is None or at < status.since:
        return None
    return TrainingView(step, steps, loss, measured.left_s())


def _machine(measured: Measurements | None) -> MachineView | None:
    if measured is None:
        return None
    sensors = measured.temperature_c, measured.power_w, measured.vram_share, measured.memory_bytes
    return MachineView(*sensors) if any(value is not None for value in sensors) else None


def _case(folder: CommunityFolder, doing: Activity) -> OwnCase | None:
    if doing.doing != "refused" or ANSWER not in doing.why:
        return None
    return OwnCase(EVIDENCE.search(doing.why) is not None, last_appeal(folder))


def _protection(folder: CommunityFolder) -> str:
    info = folder.info()
    try:
        return protection_now(info, SentLog(folder.root).recent())
    except NomoatError as problem:
        return f"{protection(info)}; {problem}"
