"""A volunteer put together from its parts, and at work until its owner ends it.

    connection ──message──▶ seal ──▶ roster ──▶ governor ──▶ round ──▶ trainer ──▶ shared worker
        ▲                                                      │
        └─────────────── sent log ◀───────── answer ───────────┘

Beside the line, the governor pauses the trainer as the owner's limits and orders say, the follower
fetches versions and receipts, and the status writer tells `nomoat status` of all of them.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from nomoat.aggregation.errors import NomoatError, Refused
from nomoat.client.connection.answering import Answering
from nomoat.client.connection.flower_client import ConnectionSettings
from nomoat.client.connection.message_loop import serve
from nomoat.client.connection.threads import beneath
from nomoat.client.data.data_watch import DataWatch
from nomoat.client.data.split import FINDINGS, Split, data_stamp, forget, prepare
from nomoat.client.home import CommunityFolder
from nomoat.client.identity.keys import node_key
from nomoat.client.identity.software import software
from nomoat.client.machine.governor import Governor
from nomoat.client.machine.policy import Action, Decision
from nomoat.client.machine.probes import Probes, local_now
from nomoat.client.membership.agreement import load as load_agreement
from nomoat.client.membership.agreement import most_bytes
from nomoat.client.membership.base_model import check_base
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.membership.roster_cache import RosterCache, with_offered_roster
from nomoat.client.membership.roster_file import RosterFile
from nomoat.client.membership.terms.questions import waited_for
from nomoat.client.membership.terms.renewal import TermsWatch
from nomoat.client.round.app import RequestHandler, volunteer_app
from nomoat.client.round.sealed_app import App, SealParties, sealed
from nomoat.client.round.update_store import DiskUpdateStore
from nomoat.client.sent.log_file import SentLog
from nomoat.client.sent.recorder import Recorder
from nomoat.client.training.base_loss import BaseLossFile
from nomoat.client.training.memory_fit import check_held, fitted
from nomoat.client.training.personal_state import DiskPersonalStates
from nomoat.client.training.shared_workers import SharedWorkers
from nomoat.client.training.trainer import Trainer
from nomoat.client.volunteer.agreed_memory import memory_of
from nomoat.client.volunteer.approval import wait_for_approval
from nomoat.client.volunteer.follower import Known, VersionFollower, fetch_receipts
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.limits_watch import LimitsWatch, owner_limits
from nomoat.client.volunteer.measurements import MeasurementsFile, path_of
from nomoat.client.volunteer.own_rules import RulesWatch, round_session
from nomoat.client.volunteer.permission.gate import following, governed
from nomoat.client.volunteer.permission.terms import renewing, terms_watch
from nomoat.client.volunteer.status import alone
from nomoat.client.volunteer.status_writer import StatusWriter
from nomoat.client.volunteer.telling.desktop_notices import with_notices
from nomoat.client.volunteer.telling.owner_lines import OwnerLines, nobody
from nomoat.client.volunteer.telling.presence_watch import PresenceWatch
from nomoat.client.volunteer.training_watch import TrainingWatch
from nomoat.lora.device.gpu_queue import pids_with_tickets
from nomoat.lora.device.present import gpus_of
from nomoat.lora.training.steps import TrainingStep
from nomoat.storage.atomic import sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """The parts of a volunteer that outlive a connection."""

    status: StatusWriter
    trainer: Trainer
    governor: Governor
    answering: Answering
    known: Known
    terms: TermsWatch


def volunteer(
    kit: Kit,
    stop: threading.Event,
    workers: SharedWorkers,
    say: Callable[[str], None] = nobody,
) -> bool:
    """Take part until `stop` is set, or the owner said finish, or agreed to other terms.

    Returns True in that last case: what takes part anew is bound by those. workers: hold the base
    models of this process. say: is given a line for each event. Threads are named after this one.

    Raises Refused if the community has put this volunteer out; NomoatError if something here is
    wrong (data, base model, keys).
    """
    with ExitStack() as stack:
        stack.enter_context(alone(kit.folder))
        stack.enter_context(_explained(kit.folder))
        sweep(kit.folder.root)
        stack.callback(forget, kit.folder.split)
        with suppress(NomoatError):  # what is not here tells whether `held` was put back
            fetch_receipts(kit)
        parts = assemble(kit, workers, OwnerLines(say))
        stack.callback(parts.trainer.close)
        beneath(lambda: _close_with(stop, parts.trainer), "closing").start()
        beneath(lambda: parts.governor.run(stop), "governor").start()
        agreed = renewing(parts.terms, stop)
        VersionFollower(kit, parts.known, parts.status, stop, _tending(kit, parts)).start()
        connection = _connection(kit, parts)
        while not stop.is_set():
            try:
                serve(connection, parts.answering, stop, parts.status)
            except Refused:
                wait_for_approval(kit, parts.status, stop)
        parts.status.say("stopped", _why_stopped(parts.governor))
        return agreed.is_set()


def _tending(kit: Kit, parts: Parts) -> Callable[[], None]:
    """Return what looks at the data, at what the coordinator waits for, and where it is."""
    lineage = parts.known.lineage
    watch = TrainingWatch(lambda: lineage.known, lineage.refresh, parts.trainer.overtake)
    presence = PresenceWatch(lambda: waited_for(kit.coordinator, int(time.time())), parts.status)
    addresses = kit.address_watch(parts.terms.renewed)

    def tend() -> None:
        parts.trainer.tend()
        watch.look(parts.status.status)
        parts.terms.look()
        presence.look(parts.status.status)
        addresses.look(parts.status.up)
        if not parts.status.up and (told := kit.offered()) is not None:
            parts.status.say("connecting", told)

    return tend


def assemble(kit: Kit, workers: SharedWorkers, lines: OwnerLines) -> Parts:
    """Make a volunteer's parts; nothing is started yet."""
    folder, info = kit.folder, kit.folder.info()
    check_base(kit.settings.base, info.base_hash, info.name)
    split = _split(kit)
    status = StatusWriter(folder, with_notices(kit, lines.status))
    trainer = _trainer(kit, split, workers, status)
    cache = RosterCache(RosterFile(folder.root), kit.coordinator)
    lineage = PinnedLineage(folder.root, kit.coordinator)
    recorder = Recorder(SentLog(folder.root), info.name, kit.settings.address)
    governor = _governor(kit, trainer, status, recorder, workers)
    measured = MeasurementsFile(path_of(folder), lambda: trainer.pids)
    trainer.on_step, governor.looked = _both(measured.stepped, lines.stepped), measured.looked
    store = DiskUpdateStore(folder.held)
    session = round_session(kit, cache, store, lineage)
    known = Known(cache, lineage)
    observers = (status, recorder, lines, known.measured)
    handler = RequestHandler(session, trainer, store, observers)
    terms = terms_watch(kit, status)
    inner = governed(volunteer_app(lambda _context: handler), governor, terms)
    app = following(_app(kit, inner, cache), RulesWatch(kit, cache, session))
    answering = Answering(app, recorder, trainer.overtake)
    return Parts(status, trainer, governor, answering, known, terms)


def _both(
    first: Callable[[TrainingStep], None], second: Callable[[TrainingStep], None]
) -> Callable[[TrainingStep], None]:
    def stepped(step: TrainingStep) -> None:
        first(step)
        second(step)

    return stepped


@contextmanager
def _explained(folder: CommunityFolder) -> Iterator[None]:
    """Make what ends the volunteer what `nomoat status` says afterwards."""
    try:
        yield
    except Refused:  # said already, with what it waits for
        raise
    except NomoatError as problem:
        StatusWriter(folder).say("stopped", str(problem))
        raise


def _close_with(stop: threading.Event, trainer: Trainer) -> None:
    """Interrupt training at once; a line whose network is gone takes its time to end."""
    stop.wait()
    trainer.close()


def _split(kit: Kit) -> Split:
    folder, settings = kit.folder, kit.settings
    split = prepare(
        settings.data,
        folder.split,
        settings.heldout,
        kit.kept(),
        heldout_data=settings.heldout_data,
    )
    if split.secret_rows:
        found = folder.split / FINDINGS
        log.warning("%d rows look secret and are left out, see %s", split.secret_rows, found)
    return split


def _trainer(kit: Kit, split: Split, workers: SharedWorkers, status: StatusWriter) -> Trainer:
    settings, machine = kit.settings, kit.settings.machine
    check_held(machine, settings.device)
    base, device, folder = settings.base, settings.device, kit.folder
    base_hash = folder.info().base_hash
    worker = workers.worker(base_hash, base, device, machine)
    return Trainer(
        worker,
        split,
        DiskPersonalStates(kit.folder.personal_states),
        kit.folder.checkpoint,
        lambda job: fitted(job, base, device, machine, worker.pids, memory_of(folder)),
        status.queued,
        _watch(kit, status).rows,
        status.rows,
        base_loss=BaseLossFile.within(kit.folder.root),
    )


def _watch(kit: Kit, status: StatusWriter) -> DataWatch:
    settings = kit.settings

    def stamp() -> str:
        return data_stamp(settings.data, settings.heldout, kit.kept(), settings.heldout_data)

    return DataWatch(
        settings.data_changes,
        stamp,
        lambda: _split(kit),
        status.data,
        stamp(),
        lambda: forget(kit.folder.split),
    )


def _app(kit: Kit, inner: App, cache: RosterCache) -> App:
    info, coordinator = kit.folder.info(), kit.coordinator
    parties = SealParties(
        coordinator.identity, coordinator.community, info.base_hash, coordinator.checked
    )
    return sealed(with_offered_roster(inner, cache), parties)


def _connection(kit: Kit, parts: Parts) -> ConnectionSettings:
    settings, governor, terms = kit.settings, parts.governor, parts.terms
    return ConnectionSettings(
        kit.coordinator.endpoint,
        node_key(kit.folder.node_key),
        (settings.poll_least, settings.poll_most),
        upload_bytes_s=settings.machine.upload_bytes_s,
        download_bytes_s=settings.machine.download_bytes_s,
        paused=lambda: terms.waiting or not governor.training_allowed,
        software=software() if settings.show_software else "",
        most_bytes=lambda: most_bytes(load_agreement(kit.folder.root, kit.folder.info())),
    )


def _governor(
    kit: Kit, trainer: Trainer, status: StatusWriter, recorder: Recorder, workers: SharedWorkers
) -> Governor:
    device = kit.settings.device
    probes = Probes(
        kit.folder.root,
        lambda: workers.pids | {os.getpid()},
        gpus_of(device),
        lambda: pids_with_tickets(device),
    )

    def handing_over() -> bool:
        return status.status.doing == "working" or recorder.handing_over()

    def told(decision: Decision) -> None:
        if decision.action is Action.WAIT:
            status.hold(decision.reason, decision.since.timestamp())
        else:
            status.release()

    lots = os.urandom(16)
    limits = owner_limits(kit.settings.machine, lots)
    return Governor(
        kit.folder.root,
        limits.machine,
        probes.readings,
        trainer,
        handing_over,
        told,
        lambda: local_now(time.time()),
        limits.cpu_share,
        reread=LimitsWatch(kit.folder, lots),
    )


def _why_stopped(governor: Governor) -> str:
    decision = governor.decision
    stopped = decision is not None and decision.action is Action.STOP
    return decision.reason if decision is not None and stopped else "its owner ended it"
