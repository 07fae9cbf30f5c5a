"""`nomoat up`: one process that is the community's port and drives its rounds."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid

from nomoat.aggregation.errors import NomoatError, UsageError
from nomoat.aggregation.methods.modules import same_scale
from nomoat.aggregation.methods.plaintext.stacking import MAX_GROWN_RANK
from nomoat.aggregation.protocol.adapter import AdapterSpec
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.aggregation.protocol.signing import SIGNATURE_BYTES
from nomoat.aggregation.protocol.wire import PART_BYTES
from nomoat.aggregation.protocol.work_terms import WorkTerms, rounds_per_day, sign
from nomoat.aggregation.sums.parallel import Run
from nomoat.flower.process import quick_turns
from nomoat.lora.scan.plan import ScanPlan
from nomoat.lora.workers.pool import Pool
from nomoat.server.audit.certificate import CertificateRenewal
from nomoat.server.audit.promises import cut_off
from nomoat.server.audit.schedule import ScheduledAudit
from nomoat.server.backup.restoring import restorations
from nomoat.server.community.evaluation_split import EvaluationSplit
from nomoat.server.community.folder import describe
from nomoat.server.community.journal import CommunityJournal
from nomoat.server.community.opened import OpenCommunity
from nomoat.server.conduct.clock_steps import ClockSteps
from nomoat.server.conduct.ledger import ConductLedger
from nomoat.server.consent.addresses import stated
from nomoat.server.consent.editions import agreeing, announced
from nomoat.server.fleet.fleet_grid import FleetGrid, open_run
from nomoat.server.fleet.link_state import FleetState
from nomoat.server.fleet.sealed_grid import Addressee, CommunitySigner, SealedGrid
from nomoat.server.port.forwarded import networks
from nomoat.server.port.listening import ListenOptions
from nomoat.server.port.services import Asking, Directory, PortServices
from nomoat.server.porters.opening import open_port
from nomoat.server.release.canary_checks import CanaryChecks, check_canaries
from nomoat.server.release.canary_file import read_canaries
from nomoat.server.release.rolling_back import heed, overruled, roll_back
from nomoat.server.release.scanning import scan_versions
from nomoat.server.roster_watch import watched
from nomoat.server.rounds.coordinator import Coordinator, coordinator_app
from nomoat.server.rounds.federation import FederationCheckpoint
from nomoat.server.rounds.ports import Clock, Fleet
from nomoat.server.rounds.watching import RoundProgress, Traffic, Watcher
from nomoat.server.state_file import FILE as STATE
from nomoat.server.state_file import StateFile, presence
from nomoat.server.succession.rotation import is_asked
from nomoat.storage.atomic import sweep

log = logging.getLogger(__name__)

NONCE_BYTES = 16
SEED_BYTES = 32
LOOK_S = 0.1
KEY_LOOK_S = 1.0
MOST_LOOKING = 0.01  # of a core, while volunteers are waited for, however many there are
LONGEST_BACK_OFF_S = 300


class Stopped(BaseException):
    """The operator wants the coordinator to end; not an error, so nothing catches it."""


class KeyWaits(BaseException):
    """The community's next key waits, and no round is under way: it takes its place now."""


@contextmanager
def hosting(
    community: OpenCommunity, watcher: Watcher, stop: threading.Event, new_terms: bool = False
) -> Iterator[Deployment]:
    """Open the community's port while the block runs.

    new_terms: members who agreed to stricter terms are asked again, instead of a refusal here.
    NomoatError in one line if it cannot be: a key is missing, the port is taken, another process
    has the folder.
    """
    folder, settings = community.folder, community.settings
    networks(settings.server.proxies)
    folder.check_keys()
    with ExitStack() as resources:
        resources.enter_context(community.alone(f"{folder.root} is already up in another process"))
        resources.enter_context(quick_turns())
        certificate = _looked_after(community, stop)
        community.keep_terms(new_terms)
        resources.enter_context(watched(community.registrar))
        directory = Directory(community.registrar)
        state = FleetState(folder.flower, directory, directory.now)
        resources.callback(state.close)
        services, listening = _services(community, state), _listening(community)
        proxies, shown_by = settings.server.proxies, certificate.shown_by
        port = resources.enter_context(open_port(services, directory, listening, proxies, shown_by))
        resources.callback(state.pulls.close)
        grid = FleetGrid(state, settings.rounds.patience)
        resources.enter_context(open_run(state, grid))
        own = _own_work(community, resources)
        cores = resources.enter_context(ThreadPoolExecutor(os.cpu_count() or 1, "sum"))
        gc.freeze()  # what is loaded stays: then collecting takes milliseconds (body_buffer.py)
        yield Deployment(
            community,
            grid,
            _sealed(community, state, grid, directory),
            _state_file(community, port.number, watcher, grid),
            stop,
            *own,
            port.carried,
            cores.map,  # numpy lets go of the interpreter's lock
        )


def _state_file(
    community: OpenCommunity, port: int, watcher: Watcher, grid: FleetGrid
) -> StateFile:
    def willing() -> dict[str, int]:
        return agreeing(community.consents, grid.willing())

    def members() -> list[str]:
        everyone = community.registrar.known().members.items()
        return [name for name, member in everyone if member.standing is not Standing.LEFT]

    path, online = community.folder.root / STATE, grid.online
    told = {"software": grid.software, "spoken": grid.spoken}
    return StateFile(path, port, watcher, online, willing, told, members)


def _looked_after(community: OpenCommunity, stop: threading.Event) -> CertificateRenewal:
    """Put right what can be; start what looks at it daily, at its certificate at once, too."""
    _put_right(community)
    certificate = CertificateRenewal(community, stop)
    certificate.look()  # the folder is ours: no other process shows it
    certificate.start()
    ScheduledAudit(community, stop).start()
    return certificate


def _put_right(community: OpenCommunity) -> None:
    """Clean up after processes that were killed; make again what can be.

    NomoatError if the database was cut off: nothing may be begun on it.
    """
    if (missing := cut_off(community)) is not None:
        raise NomoatError(missing)
    community.check_fixed()
    community.check_privacy()
    sweep(community.folder.root)
    community.versions.sweep()
    for name in community.registrar.mend(int(time.time())):
        log.warning("the standing of %s was damaged: it is that of the roster again", name)


@dataclass(frozen=True)
class Deployment:
    """An open port and what drives rounds through it. sums: how a sum is worked on."""

    community: OpenCommunity
    grid: FleetGrid
    sealed: SealedGrid
    file: StateFile
    stop: threading.Event
    split: EvaluationSplit | None
    canaries: CanaryChecks | None
    meter: Callable[[], Traffic]
    sums: Run

    @property
    def port(self) -> int:
        """The number of the open port."""
        return self.file.port

    def run(self) -> FederationCheckpoint | None:
        """Run the rounds that are left; None if it was stopped before the last."""
        ends: list[FederationCheckpoint] = []
        run_id = self.grid.run.run_id
        context = Context(
            run_id=run_id, node_id=0, node_config={}, state=RecordDict(), run_config={}
        )
        try:
            coordinator_app(self._coordinator(), ends.append)(self.sealed, context)
        except Stopped:
            return None
        return ends[-1]

    def stay(self) -> None:
        """Keep the port open for whoever fetches adapters, until it is stopped."""
        rounds = self.community.settings.rounds.max_rounds
        done = RoundProgress(rounds, "all rounds done", 0, 0)
        self.file.progress(done)
        while not self.stop.wait(KEY_LOOK_S):
            self.file.progress(done)  # who is there changes
            self._heed_key()
            heed(self.community, int(time.time()))

    def _heed_key(self) -> None:
        if is_asked(self.community.folder):
            raise KeyWaits

    def _coordinator(self) -> Coordinator:
        community, initial = self.community, self.community.initial()
        ledger, journal = ConductLedger(community.registrar), _journal(community, initial.spec)
        settled, steps = community.registrar.database.settled, ClockSteps(time.time, time.monotonic)
        return Coordinator(
            community.settings.federation(),
            initial,
            journal,
            self.file,
            Fleet(
                lambda _grid: agreeing(self.community.consents, self.grid.willing()),
                community.secagg_roster,
                self._before_round,
                self.meter,
                self._withdraw,
            ),
            Clock(time.monotonic, self._pause),
            measure=self.split.measure if self.split else None,
            train=self.split.train if self.split else None,
            credit=lambda number, earned: settled(
                partial(community.credit, number, earned, int(time.time()))
            ),
            conduct=lambda number, shown: settled(
                partial(ledger.judge, number, steps.excused(shown), int(time.time()))
            ),
            sums=self.sums,
            standing=community.versions.standing,
            back_off_s=back_off_s,
            revise=lambda checkpoint: self._revised(journal, checkpoint),
            ordered=lambda checkpoint: _ordered(community, journal, checkpoint),
        )

    def _revised(
        self, journal: CommunityJournal, checkpoint: FederationCheckpoint
    ) -> FederationCheckpoint:
        """Return where rounds go on: a version the rule has gone back to, or `checkpoint`."""
        community, now = self.community, int(time.time())
        if roll_back(community, now) is not None:
            checkpoint = journal.last() or checkpoint
        release = community.settings.release
        if release.scan_seconds and self.split is not None:
            seed = os.urandom(SEED_BYTES)
            plan = ScanPlan(seed, release.scan_texts, seconds=release.scan_seconds)
            scan_versions(community, partial(self.split.scan, plan=plan), now)
        if self.canaries is not None:
            check_canaries(community, self.canaries, now)
        return checkpoint

    def _withdraw(self, message_ids: Collection[str]) -> None:
        self.grid.withdraw(message_ids)
        self.sealed.forget(message_ids)

    def _pause(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise Stopped

    def _before_round(self, grid: Grid, number: int) -> None:
        """Wait until it is time and enough volunteers are there."""
        rounds = self.community.settings.rounds
        opens_at = time.monotonic() + (rounds.round_every if number > 1 else 0.0)
        while True:
            self._heed_key()
            began = time.thread_time()
            heed(self.community, int(time.time()))
            present = len(agreeing(self.community.consents, self.grid.willing()))
            if present >= rounds.least_present and time.monotonic() >= opens_at:
                return
            self.file.waiting(number, present, rounds.least_present)
            self._pause(until_next_look_s(time.thread_time() - began))


def _journal(community: OpenCommunity, spec: AdapterSpec) -> CommunityJournal:
    return CommunityJournal(
        community.versions,
        spec,
        community.settings.method.name,
        lambda: int(time.time()),
        community.settings.privacy.noise,
        lambda: overruled(community),
    )


def _ordered(
    community: OpenCommunity, journal: CommunityJournal, checkpoint: FederationCheckpoint
) -> FederationCheckpoint:
    """Return where rounds go on: a version that was gone back to, or `checkpoint`."""
    heed(community, int(time.time()))
    return journal.standing(checkpoint)


def until_next_look_s(took_s: float) -> float:
    """Return the pause after a look that took so much processor time: most of the time is rest."""
    return max(LOOK_S, took_s / MOST_LOOKING)


def back_off_s(abandoned: int) -> float:
    """Return the seconds to wait after rounds abandoned in a row: 1, 2, 4 … at most 300."""
    return float(min(LONGEST_BACK_OFF_S, 2 ** min(abandoned - 1, 30)))


def _services(community: OpenCommunity, state: FleetState) -> PortServices:
    settings, method = community.settings, community.settings.method
    initial, key = community.initial(), community.registrar.key
    authority = community.folder.authority_certificate.read_bytes()
    # The largest reply: a masked vector of 4 to 8 bytes a value, and what surrounds it.
    exchanges = range(1, method.traits.exchanges + 1)
    sent = max(method.manifest(initial.spec, 1, number).size for number in exchanges)
    max_objects = 8 * max(sent, initial.spec.size) // PART_BYTES + 20
    info = describe(settings, key, authority, initial.spec.size)
    versions, work = community.versions, _work(community, initial.spec)
    state.expect(max(sent, work.adapter_values))
    restored = partial(restorations, community.folder)
    waits, now = partial(presence, community.folder.root / STATE), int(time.time())
    services = PortServices(state, community.registrar, versions, info, max_objects, restored)
    edition, places = announced(community, work, now), stated(community, now)
    asking = Asking(waits, edition, community.consents, places)
    return replace(services, work=work, asking=asking, privacy=community.privacy_terms())


def _work(community: OpenCommunity, spec: AdapterSpec) -> WorkTerms:
    """Return the work that volunteers are asked for, as they agree to it when they join."""
    settings, rounds = community.settings, community.settings.rounds
    modules = max(MAX_GROWN_RANK, 2 * spec.rank) if settings.method.traits.grows else spec.rank
    most = same_scale(spec, modules).size
    a_day = rounds_per_day(rounds.round_every, rounds.max_rounds)
    unsigned = WorkTerms(settings.chosen.train_settings(), most, a_day, bytes(SIGNATURE_BYTES))
    return sign(unsigned, community.registrar.key)


def _listening(community: OpenCommunity) -> ListenOptions:
    server, folder = community.settings.server, community.folder
    certificate, key = folder.server_certificate, folder.server_key
    return ListenOptions(server.host, server.port, certificate, key, server.port_processes)


def _own_work(
    community: OpenCommunity, resources: ExitStack
) -> tuple[EvaluationSplit | None, CanaryChecks | None]:
    """The community's own rows, its canaries, and a process that reads both, if it has any."""
    folder, settings = community.folder, community.settings
    release, has_rows = settings.release, folder.evaluation.exists()
    if release.scan_seconds and not has_rows:
        raise UsageError(
            f"{folder.settings}: release.scan_seconds tries texts in rows of the community's "
            "own, which it was made without (nomoat init --eval)"
        )
    canaries = read_canaries(folder.canaries) if release.canary_seconds else None
    if not has_rows and canaries is None:
        return None, None
    base = settings.base
    pool = Pool(str(base.folder), 1, base_hash=bytes.fromhex(base.hash))
    resources.callback(pool.close, now=True)
    training = settings.training.settings("none")
    split = EvaluationSplit(folder.evaluation, training, pool) if has_rows else None
    if canaries is None:
        return split, None
    return split, CanaryChecks(canaries, pool.submit, release.canary_seconds)


def _sealed(
    community: OpenCommunity, state: FleetState, grid: FleetGrid, directory: Directory
) -> SealedGrid:
    keys: dict[int, bytes] = {}  # a node's key never changes

    def who(node: int) -> Addressee | None:
        if node not in keys:
            for found in state.get_node_info(node_ids=[node]):
                keys[found.node_id] = bytes(found.public_key)
        return directory.addressee(keys[node]) if node in keys else None

    base_hash = bytes.fromhex(community.settings.base.hash)
    registrar = community.registrar
    signer = CommunitySigner(
        registrar.key, base_hash, lambda: os.urandom(NONCE_BYTES), registrar.keys.founding
    )
    return SealedGrid(grid, signer, who)
