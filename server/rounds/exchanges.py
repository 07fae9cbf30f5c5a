"""Opening the exchanges of a round: masked or not, a sum or every upload, as the method asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from nomoat.aggregation.methods import AnyMethod
from nomoat.aggregation.methods.base import PlaintextMethod, SummedMethod
from nomoat.aggregation.protocol.adapter import Adapter, Vector
from nomoat.aggregation.protocol.messages import (
    ReportRequest,
    TrainSettings,
    TrainTask,
    task_digest,
)
from nomoat.aggregation.robust.intake import RobustIntake
from nomoat.aggregation.secagg.audit.terms import audited
from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.noise.shares import with_noise
from nomoat.aggregation.secagg.parameters import RosterView, Terms, agreed_thresholds, propose
from nomoat.aggregation.secagg.thresholds import assume
from nomoat.aggregation.secagg.transcript import work_hash
from nomoat.aggregation.sums.intake import Intake
from nomoat.aggregation.sums.norm_bound import NormBound
from nomoat.aggregation.sums.parallel import Run
from nomoat.server.rounds.cohort import round_seed
from nomoat.server.rounds.federation import Federation
from nomoat.server.rounds.machines.interfaces import Exchange
from nomoat.server.rounds.machines.masked_exchange import MaskedExchange, MaskedSetup
from nomoat.server.rounds.machines.parallel_exchange import ParallelExchange
from nomoat.server.rounds.machines.patience import SESSION, Waiting
from nomoat.server.rounds.machines.plain_exchange import EachExchange, PlainExchange
from nomoat.server.rounds.machines.round_plan import OpenExchange
from nomoat.server.rounds.norms.learned_bound import RoundBound
from nomoat.server.rounds.suspicion.parts import parts_of

PHASES = 6  # of a secure-aggregation session, which share its deadline
STEPS_OF_EPOCHS = 1000  # assumed where training goes by epochs


@dataclass(frozen=True)
class Exchanges:
    """Opens exchanges. roster: who may take part in a masked sum. sums: how a sum is worked on.

    session_id: (round, exchange) → 32 bytes. standing: digest of the RoundEnd that the round's
    training began after, where versions are signed. audit_seed: the same as session_id, of an
    audit's seed, which nobody else may know beforehand; without it none is audited. parts: so many
    masked sums a round, at most, each over a random part of the cohort. suspected: of spoiling
    sums, by what probability; they are dealt out over the parts.
    """

    federation: Federation
    method: AnyMethod
    roster: Callable[[], RosterView] | None
    session_id: Callable[[int, int], bytes]
    sums: Run = map
    audit_seed: Callable[[int, int], bytes] | None = None
    standing: bytes = b""
    parts: int = 1
    suspected: Mapping[str, float] = field(default_factory=dict)

    def of_round(
        self, task: TrainTask, adapter: Adapter, bound: RoundBound | None = None
    ) -> OpenExchange:
        """Return the opener of a round's exchanges, over `adapter`; bound: of its updates."""

        def open_exchange(ranks: Mapping[str, int], number: int, reply: bytes) -> Exchange:
            request = ReportRequest(task.round, number, adapter.digest, reply)
            if isinstance(self.method, PlaintextMethod):
                return self._each(ranks, request, adapter, self.method)
            limit = None if bound is None else bound.of_exchange(number, reply)
            cohort = tuple(ranks)
            if self.federation.secure:
                about = task, adapter, request
                if self.parts == 1 or limit is None:
                    return self._masked(cohort, *about, limit)
                return self._parallel(cohort, about, limit)
            return self._plain(cohort, request, adapter, limit)

        return open_exchange

    def _each(
        self,
        ranks: Mapping[str, int],
        request: ReportRequest,
        adapter: Adapter,
        method: PlaintextMethod,
    ) -> Exchange:
        federation = self.federation
        manifests = {
            rank: method.manifest(adapter.spec, request.round, request.exchange, rank)
            for rank in set(ranks.values())
        }
        return EachExchange(
            ranks, request, manifests, federation.min_reports, self._waiting(), self.sums
        )

    def _plain(
        self,
        cohort: tuple[str, ...],
        request: ReportRequest,
        adapter: Adapter,
        bound: NormBound | None,
    ) -> Exchange:
        federation = self.federation
        manifest = self.method.manifest(adapter.spec, request.round, request.exchange)
        intake: Intake | RobustIntake = (
            RobustIntake(manifest, federation.robust, bound)
            if federation.robust
            else Intake.of(manifest, self.sums, bound=bound)
        )
        return PlainExchange(cohort, request, intake, federation.min_reports, self._waiting())

    def _waiting(self, phases: int = 1) -> Waiting:
        """Return the waiting of one of so many phases, which share a deadline."""
        federation = self.federation
        patience = None if federation.patience is None else SESSION
        whole = federation.aggregate_deadline_s
        return Waiting(whole / phases, patience, federation.min_reports, most_s=whole)

    def _parallel(
        self,
        cohort: tuple[str, ...],
        about: tuple[TrainTask, Adapter, ReportRequest],
        bound: NormBound,
    ) -> Exchange:
        """Several sums at once, over parts that are drawn now, so that nobody knew them before."""
        (task, adapter, request), method = about, self.method
        assert isinstance(method, SummedMethod)
        drawn = self.session_id(task.round, request.exchange)
        least, seed = self.federation.min_reports, round_seed(drawn, "parts", task.round)
        parts = parts_of(cohort, self.parts, least, seed, self.suspected)
        if len(parts) == 1:
            return self._masked(cohort, *about, bound)

        def fault(mean: Vector) -> str | None:
            return bound.fault_of_mean(mean) or method.fault_of_mean(adapter.spec, mean, task.round)

        def opened(place: int, members: tuple[str, ...]) -> MaskedExchange:
            name = round_seed(drawn, "part", place)
            return replace(self, session_id=lambda *_: name)._masked(members, *about, bound)

        opener = {members: opened(place, members) for place, members in enumerate(parts)}
        return ParallelExchange(opener, fault, bound)

    def _masked(
        self,
        cohort: tuple[str, ...],
        task: TrainTask,
        adapter: Adapter,
        request: ReportRequest,
        bound: NormBound | None,
    ) -> MaskedExchange:
        federation, method = self.federation, self.method
        assert self.roster is not None
        assert isinstance(method, SummedMethod)
        roster, number = self.roster(), request.exchange
        manifest = method.manifest(adapter.spec, task.round, number)
        terms = Terms(task.round, number, federation.base_hash, adapter.digest, manifest, roster)
        work = work_hash(task_digest(task), request.reply)
        terms = replace(terms, work=work, standing=self.standing)
        clip = federation.clip or reach(task.settings)
        most = max(2, len(cohort))
        # Volunteers sum a further exchange over the cohort of the first, or not at all (§19.3).
        least = federation.min_reports if number == 1 else most
        offer = propose(
            self.session_id(task.round, number),
            terms,
            method.clips(adapter, task.round, number, clip),
            (least, most),
            assume(most),
            clip_l2=bound.limit if bound is not None else 0.0,
        )
        offer = replace(offer, n_each=max(2, min(federation.min_reports, most)))
        offer, seed = self._audited(offer)
        if federation.noise_multiplier and bound is not None:
            offer = with_noise(offer, federation.noise_multiplier)
            bound = _under_noise(bound, offer, most, manifest.size)
        phase = self._waiting(PHASES + bool(seed))
        setup = MaskedSetup(offer, manifest, roster, request.reply, phase, bound, seed)
        return MaskedExchange(cohort, setup)

    def _audited(self, offer: SessionOffer) -> tuple[SessionOffer, bytes]:
        """The offer with an audit and its seed, if there is to be one and can be; b"" without."""
        if not self.federation.audit or self.audit_seed is None:
            return offer, b""
        seed = self.audit_seed(offer.round, offer.exchange)
        asked = audited(offer, seed)
        return asked, seed if asked.audit_kind else b""


def _under_noise(bound: NormBound, offer: SessionOffer, most: int, values: int) -> NormBound:
    """The bound on a mean that has the noise of at least `honest` of `most` in it, too."""
    needed = agreed_thresholds(offer, most)
    honest = max(1, needed.survivors - needed.corrupt)
    noise = offer.noise_multiplier * bound.limit * math.sqrt(values) / honest
    return replace(bound, noise=noise)


def reach(training: TrainSettings) -> float:
    """A bound on how far AdamW moves one value in a round: 2 · steps · learning rate.

    Its steps are about the learning rate each (Kingma & Ba 2015, §2.1); twice that leaves room.
    Training by epochs has no step count that is known here: 1000 steps are assumed.
    """
    steps = training.local_steps if training.local_epochs == 0 else STEPS_OF_EPOCHS
    return 2 * steps * training.learning_rate
