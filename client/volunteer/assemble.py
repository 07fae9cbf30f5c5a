"""A volunteer at work: keys, data, worker and line put together, until its owner ends it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from flwr.app import Context, Message

from nomoat.aggregation.errors import (
    DoesNotFit,
    NomoatError,
    Refused,
    RemoteProtocolError,
    Unreachable,
)
from nomoat.aggregation.protocol import lineage, wire
from nomoat.aggregation.protocol.enrolment import CommunityInfo, Standing
from nomoat.aggregation.protocol.messages import EvaluateTask, TrainTask
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.connection import coordinator_api
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.flower_client import ConnectionSettings
from nomoat.client.connection.https import Endpoint
from nomoat.client.connection.message_loop import beneath, serve
from nomoat.client.data import secrets_allowlist
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.client.data.split import FINDINGS, Split, prepare
from nomoat.client.home import CommunityFolder, Home, VolunteerSettings
from nomoat.client.identity.keys import load_identity, node_key
from nomoat.client.machine.governor import Governor
from nomoat.client.machine.policy import Action, Decision
from nomoat.client.machine.probes import Probes, local_now
from nomoat.client.membership.joining import check_base, logged
from nomoat.client.membership.roster_cache import RosterBook, aimed
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.masked_session import MaskedSession, Membership
from nomoat.client.round.sealed_app import App, SealParties, sealed
from nomoat.client.round.session import Reason, RoundSession, decline
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log_file import SentLog
from nomoat.client.sent.recorder import Recorder
from nomoat.client.training.community_fit import rank_of
from nomoat.client.training.memory_fit import check_bits, fitted
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.client.training.shared_worker import SharedWorkers
from nomoat.client.training.trainer import Trainer
from nomoat.client.volunteer.status import StateKeeper, alone
from nomoat.flower.packets import to_reply
from nomoat.lora.device.present import gpu_of
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

ASK_AGAIN_S = 15.0
LOOK_S = 0.2
FOLLOW_S = (0.0, 3.0, 15.0, 60.0)
TRAIN = wire.action_of(wire.kind_of(TrainTask))
WORK = frozenset({TRAIN, wire.action_of(wire.kind_of(EvaluateTask))})


@dataclass(frozen=True)
class Kit:
    """What a volunteer brings: its place, what its owner set, how it asks its coordinator."""

    folder: CommunityFolder
    settings: VolunteerSettings
    coordinator: CoordinatorClient
    allowlist: Allowlist = field(default_factory=Allowlist)  # of what looks secret in the data

    @classmethod
    def of(cls, home: Home, folder: CommunityFolder, settings: VolunteerSettings) -> Kit:
        """The kit of a community this machine has joined."""
        info = folder.info()
        endpoint = Endpoint.at(settings.address, ca=info.ca)
        coordinator = CoordinatorClient(endpoint, load_identity(home.identity), info.public)
        return cls(folder, settings, coordinator, secrets_allowlist.load(home.root))


def volunteer(kit: Kit, stop: threading.Event, workers: SharedWorkers) -> None:
    """Take part until `stop` is set, or the owner said finish.

    workshop: where this process has its base models. Threads are named after the present one.

    Raises Refused if the community has put this volunteer out; NomoatError if something here is
    wrong (data, base model, keys).
    """
    folder, settings = kit.folder, kit.settings
    info = folder.info()
    with ExitStack() as things:
        things.enter_context(alone(folder))
        things.enter_context(_explained(folder))
        check_base(settings.base, info.base_hash, info.name)
        split = prepare(
            settings.data,
            folder.split,
            settings.heldout,
            kit.allowlist,
            heldout_data=settings.heldout_data,
        )
        if split.secret_rows:
            found = folder.split / FINDINGS
            log.warning("%d rows look secret and are left out, see %s", split.secret_rows, found)
        trainer = _hands(kit, split, workers)
        things.callback(trainer.close)
        beneath(lambda: _close_with(stop, trainer), "closing").start()
        book = RosterBook(folder, kit.coordinator)
        session = _session(kit, book)
        keeper = Listening(folder, trainer, session)
        trainer.queued = keeper.queued
        recorder = Recorder(
            SentLog(folder.root), info.name, settings.address, lambda: session.uploaded
        )
        governor = _governor(kit, trainer, keeper, recorder, workers)
        app = _app(
            kit, RequestHandler(session, trainer, DiskUpdateStore(folder.held)), book, governor
        )
        beneath(lambda: governor.run(stop), "governor").start()
        Errands(kit, keeper, stop).start()
        connection = ConnectionSettings(
            kit.coordinator.endpoint,
            node_key(folder.node_key),
            (settings.poll_least, settings.poll_most),
            upload_bytes_s=settings.machine.upload_bytes_s,
            download_bytes_s=settings.machine.download_bytes_s,
        )
        while not stop.is_set():
            try:
                serve(connection, app, stop, keeper, recorder)
            except Refused:
                _wait_for_approval(kit, keeper, stop)
        keeper.say("stopped", _why_stopped(governor))


@contextmanager
def _explained(folder: CommunityFolder) -> Iterator[None]:
    """What ends the volunteer is what `nomoat status` says afterwards."""
    try:
        yield
    except Refused:  # said already, with what it waits for
        raise
    except NomoatError as problem:
        StateKeeper(folder).say("stopped", str(problem))
        raise


def _close_with(stop: threading.Event, trainer: Trainer) -> None:
    """Lay a training down at once; a line whose network is gone takes its time to end."""
    stop.wait()
    trainer.close()


def _hands(kit: Kit, split: Split, workers: SharedWorkers) -> Trainer:
    settings, machine = kit.settings, kit.settings.machine
    check_bits(machine)
    base, device = settings.base, settings.device
    base_hash = kit.folder.info().base_hash
    worker = workers.worker(base_hash, base, device, machine.base_bits, machine.cores)
    return Trainer(
        worker,
        split,
        DiskPersonalStates(kit.folder.kept),
        kit.folder.checkpoint,
        lambda job: fitted(job, base, device, machine, worker.pids),
    )


class Listening(StateKeeper):
    """Keeps state.json, and tells the hands when nobody waits for their work any more."""

    def __init__(self, folder: CommunityFolder, trainer: Trainer, session: RoundSession) -> None:
        super().__init__(folder)
        self._hands = trainer
        self._session = session
        self._trained = 0

    def overtaken(self) -> None:
        """Give up what is being done."""
        self._hands.overtake()

    def answered(self, kind: str, sent_bytes: int, late: bool) -> None:
        """It was answered: by a training, or by saying that there is none, and why."""
        trained, self._trained = self._hands.trainings > self._trained, self._hands.trainings
        if self._hands.losses is not None:
            self.measured(*self._hands.losses)
        super().answered("declined" if kind == TRAIN and not trained else kind, sent_bytes, late)
        if kind != TRAIN:
            return
        if self._session.complaint is not None:
            self.say("waiting", f"the last training was declined: {self._session.complaint}")
        elif self._hands.problem is not None:
            self.say("waiting", f"the last training failed: {self._hands.problem}")


def _session(kit: Kit, book: RosterBook) -> RoundSession:
    info, settings = kit.folder.info(), kit.settings
    store = DiskUpdateStore(kit.folder.held)
    policy = Policy(min_participants=info.min_participants, allow_weak=info.allow_weak)
    membership = Membership(
        kit.coordinator.identity, book.current, policy, lambda _session: os.urandom(32), info.secure
    )
    return RoundSession(
        settings.name,
        info.base_hash,
        settings.limits(_rank(settings, info)),
        store.load(),
        MaskedSession(membership, store.marks()),
    )


def _rank(settings: VolunteerSettings, info: CommunityInfo) -> int:
    """What fits now; it did at joining, so what has the memory meanwhile may go away again."""
    try:
        return rank_of(settings, info)
    except DoesNotFit as problem:
        log.warning("rank 1 until the next start: %s", problem)
        return 1


def _app(kit: Kit, at_work: RequestHandler, book: RosterBook, governor: Governor) -> App:
    info = kit.folder.info()
    inner = governed(volunteer_app(lambda _context: at_work), governor)
    return sealed(
        aimed(inner, book), SealParties(kit.coordinator.identity, info.public, info.base_hash)
    )


def _governor(
    kit: Kit, trainer: Trainer, keeper: StateKeeper, recorder: Recorder, workers: SharedWorkers
) -> Governor:
    machine = kit.settings.machine
    gpu = gpu_of(kit.settings.device)
    probes = Probes(kit.folder.root, lambda: workers.pids | {os.getpid()}, gpu)

    def handing_over() -> bool:
        return keeper.state.doing == "working" or recorder.handing_over()

    def told(decision: Decision) -> None:
        if decision.action is Action.WAIT:
            keeper.hold(decision.reason, decision.since.timestamp())
        else:
            keeper.release()

    return Governor(
        kit.folder.root,
        machine.limits(),
        probes.readings,
        trainer,
        handing_over,
        told,
        lambda: local_now(time.time()),
        machine.cpu_share,
    )


def _why_stopped(governor: Governor) -> str:
    decision = governor.decision
    stopped = decision is not None and decision.action is Action.STOP
    return decision.reason if decision is not None and stopped else "its owner ended it"


def governed(app: App, governor: Governor) -> App:
    """`app`, except that work which may not begin now is declined, so that nobody waits for it."""

    def answer(message: Message, context: Context) -> Message:
        kind = message.metadata.message_type
        if kind in WORK and not governor.may_begin(training=kind == TRAIN):
            return to_reply(wire.encode(decline(0, Reason.PAUSED)), message)
        return app(message, context)

    return answer


def _wait_for_approval(kit: Kit, keeper: StateKeeper, stop: threading.Event) -> None:
    """Find out why we are not admitted; wait while that can change, else raise Refused."""
    key = node_key(kit.folder.node_key)
    try:
        leaving = logged(kit.folder, kit.settings.address)
        standing, reason = coordinator_api.enrol(
            kit.coordinator, kit.settings.name, key, b"", leaving
        )
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
    raise Refused(f"{kit.folder.name()} has this volunteer as {standing.value}{because}")


class Errands(threading.Thread):
    """Beside the line: follow the adapter's versions, and fetch receipts."""

    def __init__(self, kit: Kit, keeper: StateKeeper, stop: threading.Event) -> None:
        super().__init__(name=f"{threading.current_thread().name}/errands", daemon=True)
        self._kit = kit
        self._keeper = keeper
        self._stop_all = stop
        self._seen = -1
        self._due: list[float] = []

    def run(self) -> None:
        """Look now and then until everything stops."""
        while not self._stop_all.wait(LOOK_S):
            state, now = self._keeper.state, time.monotonic()
            if state.answered != self._seen and state.doing == "waiting":
                self._seen = state.answered
                # A version and its receipts come some time after this volunteer's last answer.
                self._due = [now + seconds for seconds in FOLLOW_S]
            if self._due and now >= self._due[0]:
                self._due = [at for at in self._due if at > now]
                self._follow()

    def _follow(self) -> None:
        try:
            number = fetch_newest(self._kit)
            fetch_receipts(self._kit)
        except (NomoatError, RemoteProtocolError) as problem:
            log.warning("the newest adapter and receipts were not fetched: %s", problem)
            return
        if number is not None:
            self._keeper.version(number)


def fetch_receipts(kit: Kit) -> None:
    """Fetch, verify and keep the receipts that are not here yet."""
    coordinator, sent_log = kit.coordinator, SentLog(kit.folder.root)
    newest = sent_log.newest_receipt(coordinator.community, coordinator.identity.public)
    for signed in coordinator_api.receipts(coordinator, newest, int(time.time())):
        sent_log.keep(signed)


def fetch_newest(kit: Kit) -> int | None:
    """Fetch and verify the newest community adapter; its number, None if there is none."""
    folder, now = kit.folder, int(time.time())
    record = coordinator_api.newest_version(kit.coordinator, folder.version(), now)
    if record is None:
        return None
    path = folder.adapter(record)
    if not path.exists():
        adapter = coordinator_api.download(kit.coordinator, record, now)
        with replacing(path) as file:
            file.write(lineage.to_file(adapter))
        for old in path.parent.glob("*.adapter"):
            if old != path:
                old.unlink()
    folder.save_version(record)
    return record.version.number
