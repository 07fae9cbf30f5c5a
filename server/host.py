"""`nomoat up`: one process that is the community's port and drives its rounds."""

from __future__ import annotations

import datetime
import gc
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid
from sqlalchemy.exc import OperationalError

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol.wire import PART_BYTES
from nomoat.lora.workers.pool import Pool
from nomoat.server.community.evaluation_split import EvaluationSplit
from nomoat.server.community.folder import describe, renew_certificate
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.port.fleet_grid import FleetGrid, open_run
from nomoat.server.port.http_app import Directory, ListenOptions, PortServices, make_app, serving
from nomoat.server.port.link_state import FleetState
from nomoat.server.port.sealed_grid import Addressee, CommunitySigner, SealedGrid
from nomoat.server.rounds.coordinator import Coordinator, coordinator_app
from nomoat.server.rounds.records import (
    FederationCheckpoint,
    RoundProgress,
    RoundRecord,
    Traffic,
    Watcher,
)
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

NONCE_BYTES = 16
LOOK_S = 0.1


class Stopped(BaseException):
    """The operator wants the coordinator to end; not an error, so nothing catches it."""


@dataclass
class StateFile:
    """Keeps state.json, for whoever asks how the coordinator is doing, and passes everything on."""

    path: Path
    port: int
    then: Watcher
    online: Callable[[], Mapping[str, int]]
    _written: float = field(default=0.0, init=False)
    _last: RoundProgress | None = field(default=None, init=False)
    _failing: bool = field(default=False, init=False)

    def progress(self, progress: RoundProgress) -> None:
        """Something moved inside a round."""
        self.then.progress(progress)
        last = self._last
        news = last is None or (progress.round, progress.phase) != (last.round, last.phase)
        if news or (progress != last and time.monotonic() - self._written > 0.5):
            self._write(progress)
            self._last = progress

    def ended(self, record: RoundRecord) -> None:
        """A round ended."""
        self.then.ended(record)
        phase = "committed" if record.committed else "abandoned"
        self._write(
            RoundProgress(record.round, phase, len(record.contributors), len(record.cohort))
        )

    def waiting(self, round_number: int, present: int, needed: int) -> None:
        """A round waits for volunteers."""
        self.progress(RoundProgress(round_number, "waiting for volunteers", present, needed))

    def _write(self, progress: RoundProgress) -> None:
        self._written = time.monotonic()
        state = {
            "pid": os.getpid(),
            "port": self.port,
            "round": progress.round,
            "phase": progress.phase,
            "answered": progress.answered,
            "asked": progress.asked,
            "online": sorted(self.online()),
            "at": int(time.time()),
        }
        try:
            with replacing(self.path) as file:
                file.write(json.dumps(state).encode())
            self._failing = False
        except NomoatError as problem:  # a full disk, perhaps; there may be room at the round's end
            if not self._failing:
                log.warning("%s", problem)
            self._failing = True


@contextmanager
def hosting(office: OpenCommunity, watcher: Watcher, stop: threading.Event) -> Iterator[Deployment]:
    """The community's port, open while the block runs."""
    folder, settings = office.folder, office.settings
    folder.check_keys()
    renewed = renew_certificate(folder, settings, datetime.datetime.now(datetime.UTC))
    if renewed:
        log.warning("a new server certificate was issued (the old one: %s)", renewed)
    folder.flower.mkdir(exist_ok=True)
    with ExitStack() as open_things:
        open_things.enter_context(_alone(folder.flower / "up.lock"))
        directory = Directory(office.registrar)
        state = FleetState(folder.flower / "link.db", directory)
        open_things.callback(state.close)
        desk = _desk(office, state)
        listening = ListenOptions(
            settings.server.host,
            settings.server.port,
            folder.server_certificate,
            folder.server_key,
        )
        gate = make_app(desk)
        port = open_things.enter_context(serving(gate, listening))
        open_things.callback(state.mail.close)
        grid = FleetGrid(state, settings.rounds.patience)
        open_things.enter_context(open_run(state, grid))
        file = StateFile(folder.root / "state.json", port, watcher, grid.online)
        split = None
        if folder.evaluation.exists():
            pool = Pool(str(settings.base.folder), 1)
            open_things.callback(pool.close, now=True)
            split = EvaluationSplit(folder.evaluation, settings.training.settings("none"), pool)
        sealed = _sealed(office, state, grid, directory)
        gc.freeze()  # what is loaded stays: then collecting takes milliseconds (holding.py)
        yield Deployment(office, grid, sealed, file, stop, split, lambda: gate.carried)


@dataclass(frozen=True)
class Deployment:
    """An open port and what drives rounds through it."""

    office: OpenCommunity
    grid: FleetGrid
    sealed: SealedGrid
    file: StateFile
    stop: threading.Event
    split: EvaluationSplit | None
    meter: Callable[[], Traffic]

    @property
    def port(self) -> int:
        """Where the port is."""
        return self.file.port

    def run(self) -> FederationCheckpoint | None:
        """Run the rounds that are left; None if it was stopped before the last."""
        office = self.office
        settings = office.settings
        initial = office.initial()
        journal = CommunityJournal(
            office.registry, initial.spec, settings.method.name, lambda: int(time.time())
        )
        coordinator = Coordinator(
            settings.federation(),
            journal,
            self.file,
            lambda _grid: self.grid.online(),
            initial,
            office.secagg_roster,
            pause=self._pause,
            before_round=self._before_round,
            measure=self.split.measure if self.split else None,
            meter=self.meter,
            credit=lambda number, earned: office.credit(number, earned, int(time.time())),
        )
        run_id = self.grid.run.run_id
        context = Context(
            run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
        )
        try:
            coordinator_app(coordinator)(self.sealed, context)
        except Stopped:
            return None
        except OperationalError as problem:
            raise NomoatError(
                f"{office.folder.flower}: {problem.orig}; make room and start nomoat up again"
            ) from None
        return coordinator.checkpoint

    def stay(self) -> None:
        """Keep the port open for whoever fetches adapters, until it is stopped."""
        self.file.progress(
            RoundProgress(self.office.settings.rounds.max_rounds, "all rounds done", 0, 0)
        )
        self.stop.wait()

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def _before_round(self, grid: Grid, number: int) -> None:
        """Wait until it is time and enough volunteers are there."""
        rounds = self.office.settings.rounds
        opens_at = time.monotonic() + (rounds.round_every if number > 1 else 0.0)
        while True:
            present = len(self.grid.online())
            if present >= rounds.min_volunteers and time.monotonic() >= opens_at:
                return
            self.file.waiting(number, present, rounds.min_volunteers)
            self._pause(LOOK_S)


def _desk(office: OpenCommunity, state: FleetState) -> PortServices:
    settings = office.settings
    initial = office.initial()
    key = office.registrar.key
    authority = office.folder.authority_certificate.read_bytes()
    # The largest reply: a masked vector of 4 to 8 bytes a value, and what surrounds it.
    method = settings.method
    exchanges = range(1, method.traits.exchanges + 1)
    sent = max(method.manifest(initial.spec, 1, number).size for number in exchanges)
    max_objects = 8 * max(sent, initial.spec.size) // PART_BYTES + 20
    info = describe(settings, key, authority, initial.spec.size)
    return PortServices(state, office.registrar, office.registry, info, max_objects)


def _sealed(
    office: OpenCommunity, state: FleetState, grid: FleetGrid, directory: Directory
) -> SealedGrid:
    keys: dict[int, bytes] = {}  # a node's key never changes

    def who(node: int) -> Addressee | None:
        if node not in keys:
            for found in state.get_node_info(node_ids=[node]):
                keys[found.node_id] = bytes(found.public_key)
        return directory.addressee(keys[node]) if node in keys else None

    base_hash = bytes.fromhex(office.settings.base.hash)
    sender = CommunitySigner(office.registrar.key, base_hash, lambda: os.urandom(NONCE_BYTES))
    return SealedGrid(grid, sender, who)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock the operating system releases with the process, however it ends."""
    lock = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            raise NomoatError(f"{path.parent.parent} is already up in another process") from None
        yield
    finally:
        lock.close()
