"""A volunteer at work: keys, data, worker and line put together, until its owner ends it."""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

from flwr.app import Context, Message

from nomoat.aggregation import lineage, wire
from nomoat.aggregation.enrolment import Standing
from nomoat.aggregation.errors import NomoatError, Refused, RemoteProtocolError, Unreachable
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client import control, enroll
from nomoat.client.app import Volunteer, to_reply, volunteer_app
from nomoat.client.config import Home, Place, VolunteerSettings
from nomoat.client.enroll import Asker
from nomoat.client.fleet import Line, serve
from nomoat.client.hands import Hands
from nomoat.client.identity import load_identity, node_key
from nomoat.client.joining import check_base
from nomoat.client.masking import Masking, Membership
from nomoat.client.rosterbook import RosterBook, aimed
from nomoat.client.sealed import App, Belonging, sealed
from nomoat.client.session import Reason, Session, decline
from nomoat.client.shards import prepare
from nomoat.client.state import StateKeeper, alone, paused
from nomoat.client.vault import DiskVault
from nomoat.client.web import Door
from nomoat.lora.durable import replacing

log = logging.getLogger(__name__)

ASK_AGAIN_S = 15.0
LOOK_S = 0.2


@dataclass(frozen=True)
class Kit:
    """What a volunteer brings: its place, what its owner set, how it asks its coordinator."""

    place: Place
    settings: VolunteerSettings
    asker: Asker

    @classmethod
    def of(cls, home: Home, place: Place, settings: VolunteerSettings) -> Kit:
        """The kit of a community this machine has joined."""
        info = place.info()
        door = Door.at(settings.address, ca=info.ca)
        return cls(place, settings, Asker(door, load_identity(home.identity), info.public))


def volunteer(kit: Kit, stop: threading.Event) -> None:
    """Take part until `stop` is set, or the owner said finish.

    Raises Refused if the community has put this volunteer out; NomoatError if something here is
    wrong (data, base model, keys).
    """
    place, settings = kit.place, kit.settings
    info = place.info()
    check_base(settings.base, info.base_hash, info.name)
    with ExitStack() as things:
        things.enter_context(alone(place))
        shards = prepare(
            settings.data, place.shards, settings.heldout, heldout_data=settings.heldout_data
        )
        hands = Hands(settings.base, shards, settings.device)
        things.callback(hands.close)
        keeper = StateKeeper(place)
        book = RosterBook(place, kit.asker)
        key = node_key(place.node_key)
        line = Line(kit.asker.door, key, (settings.poll_least, settings.poll_most))
        app = _app(kit, hands, book)
        Errands(kit, keeper, stop).start()
        while not stop.is_set():
            try:
                serve(line, app, stop, keeper)
            except Refused:
                _wait_for_approval(kit, keeper, stop)
        keeper.say("stopped", "its owner ended it")


def _app(kit: Kit, hands: Hands, book: RosterBook) -> App:
    info, settings = kit.place.info(), kit.settings
    vault = DiskVault(kit.place.held)
    policy = Policy(min_participants=info.min_participants, allow_weak=info.allow_weak)
    membership = Membership(
        kit.asker.identity, book.current, policy, lambda _session: os.urandom(32), info.secure
    )
    session = Session(
        settings.name,
        info.base_hash,
        settings.limits(),
        vault.load(),
        Masking(membership, vault.marks()),
    )
    inner = volunteer_app(lambda _context: Volunteer(session, hands, vault))
    belonging = Belonging(kit.asker.identity, info.public, info.base_hash)
    return sealed(aimed(pausable(inner, kit.place), book), belonging)


def pausable(app: App, place: Place) -> App:
    """`app`, except that a paused volunteer declines to begin a training."""

    def answer(message: Message, context: Context) -> Message:
        orders = control.read(place.root)
        begins = message.metadata.message_type == "train.local"
        if begins and (orders.finish or paused(orders, datetime.now(UTC))):
            return to_reply(wire.encode(decline(0, Reason.PAUSED)), message)
        return app(message, context)

    return answer


def _wait_for_approval(kit: Kit, keeper: StateKeeper, stop: threading.Event) -> None:
    """Find out why we are not admitted; wait while that can change, else raise Refused."""
    key = node_key(kit.place.node_key)
    try:
        standing, reason = enroll.enrol(kit.asker, kit.settings.name, key, b"")
    except Unreachable:
        stop.wait(ASK_AGAIN_S)
        return
    if standing is Standing.APPROVED:
        stop.wait(1.0)  # approved in between
        return
    because = f": {reason}" if reason else ""
    if standing in (Standing.PENDING, Standing.HELD):
        keeper.say("refused", f"{standing.value} by the coordinator{because}; waiting")
        stop.wait(ASK_AGAIN_S)
        return
    keeper.say("refused", f"{standing.value}{because}")
    raise Refused(f"{kit.place.name()} has this volunteer as {standing.value}{because}")


class Errands(threading.Thread):
    """Beside the line: follow the adapter's versions, and end when the owner said finish."""

    def __init__(self, kit: Kit, keeper: StateKeeper, stop: threading.Event) -> None:
        super().__init__(name="errands", daemon=True)
        self._kit = kit
        self._keeper = keeper
        self._stop_all = stop
        self._seen = -1

    def run(self) -> None:
        """Look now and then until everything stops."""
        while not self._stop_all.wait(LOOK_S):
            state = self._keeper.state
            if control.read(self._kit.place.root).finish and state.doing != "working":
                self._stop_all.set()
            if state.answered != self._seen and state.doing == "waiting":
                self._seen = state.answered
                self._follow()

    def _follow(self) -> None:
        try:
            number = fetch_newest(self._kit)
        except (NomoatError, RemoteProtocolError) as problem:
            log.warning("the newest adapter was not fetched: %s", problem)
            return
        if number is not None:
            self._keeper.version(number)


def fetch_newest(kit: Kit) -> int | None:
    """Fetch and verify the newest community adapter; its number, None if there is none."""
    place, now = kit.place, int(time.time())
    record = enroll.newest_version(kit.asker, place.version(), now)
    if record is None:
        return None
    path = place.adapter(record)
    if not path.exists():
        adapter = enroll.download(kit.asker, record, now)
        with replacing(path) as file:
            file.write(lineage.to_file(adapter))
        for old in path.parent.glob("*.adapter"):
            if old != path:
                old.unlink()
    place.save_version(record)
    return record.version.number
