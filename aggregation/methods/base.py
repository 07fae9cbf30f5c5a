"""A LoRA aggregation method: a few pure functions around one adapter, the broadcast.

The model of a round that all methods share: the community adapter is a sum of rank-1 modules
s·bⱼaⱼᵀ; a volunteer trains some of them (all, if its rank allows) and keeps the others frozen in
its forward pass. So everyone starts from the same function, whatever their rank, and the scale
s is the same for everyone: α is folded in before anything is summed.

A round of a summed method with one exchange, masks left out:

    local = method.start(broadcast, LocalRound(number, rank, seed))   # each volunteer
    trained = train(local)                                            # moves local.adapter alone
    vector = method.upload(local, trained, number)                    # what leaves its machine
    update = method.update(state, mean_of(vectors), number)           # the coordinator; a server
    state = method.commit(state, update, number)                      # optimiser acts between them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from nomoat.aggregation.errors import LocalProtocolError
from nomoat.aggregation.methods import modules
from nomoat.aggregation.protocol.adapter import Adapter, AdapterSpec, Manifest, Vector
from nomoat.aggregation.sums.parallel import Run


@dataclass(frozen=True, slots=True)
class Traits:
    """The abilities of a method, by which it is chosen or refused.

    summable: the coordinator needs only Σ wᵢxᵢ and Σ wᵢ, as under secure aggregation.
    mixed_ranks: volunteers may train fewer modules than the community adapter has.
    exact: what is committed is Σ pᵢsᵢBᵢAᵢ itself, or its best approximation of rank r.
    optimizers: the mean update keeps its coordinates from round to round, so that momentum and
        adaptive server optimisers mean something.
    exchanges: sums per round.
    grows: changes the base model; kept as further modules of the broadcast, frozen for all.
    steady: the factors of a round are those of the round before, moved: what a volunteer's
        optimiser remembers of them still means something.
    uniform: all values that are summed have one bound, so that an audit can measure an update.
    """

    summable: bool
    mixed_ranks: bool
    exact: bool
    optimizers: bool
    exchanges: int = 1
    grows: bool = False
    steady: bool = True
    uniform: bool = True


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors, A and B, that are trained and sent in a round."""

    a: bool = True
    b: bool = True

    @property
    def key(self) -> str:
        """ "ab", "a" or "b": names the vector space of the update."""
        return "a" * self.a + "b" * self.b


@dataclass(frozen=True, slots=True)
class LocalRound:
    """A volunteer's part in a round: how many modules it trains, and a seed to choose them by."""

    round: int
    rank: int
    seed: bytes = b""


@dataclass(frozen=True)
class LocalStart:
    """The modules a volunteer loads: those it trains, and those that only take part in the forward.

    `adapter` and `frozen` have the broadcast's scale s; base + s·frozen + s·adapter is the
    broadcast model. `modules` are the places of `adapter`'s modules in the broadcast.
    """

    broadcast: Adapter
    adapter: Adapter
    frozen: Adapter | None
    modules: tuple[int, ...]
    factors: Factors

    def whole(self, trained: Adapter) -> Adapter:
        """The trained modules back in their places in the broadcast adapter."""
        if trained.spec != self.adapter.spec:
            raise LocalProtocolError("the trained adapter is not the one that was started from")
        if self.modules == tuple(range(self.broadcast.spec.rank)):
            return Adapter(self.broadcast.spec, trained.vector)
        return modules.scatter(self.broadcast, trained, self.modules)


@dataclass(frozen=True)
class MethodState:
    """The coordinator's state between rounds; `adapter` is the next broadcast.

    rank: modules that can be trained, the first of `adapter`'s; more only where a method grows.
    kept: whatever else the method must remember, as arrays.
    """

    adapter: Adapter
    rank: int
    kept: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """For a checkpoint; the spec (rank, α, layers) is stored beside it by the caller."""
        kept = {f"kept.{name}": values for name, values in self.kept.items()}
        return {"adapter": self.adapter.vector, "rank": np.array(self.rank, np.int64), **kept}

    @classmethod
    def from_arrays(
        cls, spec: AdapterSpec, arrays: Mapping[str, NDArray[np.generic]]
    ) -> MethodState:
        """Read what to_arrays stored, for an adapter of `spec`."""
        kept = {
            name.removeprefix("kept."): values.astype(np.float32)
            for name, values in arrays.items()
            if name.startswith("kept.")
        }
        adapter = Adapter(spec, arrays["adapter"].astype(np.float32))
        return cls(adapter, int(arrays["rank"]), kept)


@dataclass(frozen=True, slots=True)
class PlaintextReport:
    """One volunteer's report to a plaintext method: weight > 0, its vector, its rank."""

    weight: float
    vector: Vector
    rank: int


class Method:
    """The functions every method has. Methods hold no state; each function is pure."""

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    traits: ClassVar[Traits]

    def factors(self, round: int) -> Factors:
        """Return the factors that volunteers train in this round."""
        return Factors()

    def begin(self, adapter: Adapter) -> MethodState:
        """State before the first round."""
        return MethodState(adapter, adapter.spec.rank)

    def start(self, broadcast: Adapter, turn: LocalRound) -> LocalStart:
        """Deal out a volunteer's modules: the first turn.rank are trained, the rest stay frozen."""
        chosen = tuple(range(self._rank(broadcast, turn)))
        return self._start(broadcast, chosen, turn.round)

    def manifest(
        self, spec: AdapterSpec, round: int, exchange: int = 1, rank: int | None = None
    ) -> Manifest:
        """Names and shapes of a report; `spec` is the broadcast's, `rank` the volunteer's."""
        raise NotImplementedError

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """The volunteer's side: what to report of `trained`, in the layout of manifest()."""
        raise NotImplementedError

    def _rank(self, broadcast: Adapter, turn: LocalRound) -> int:
        if not 1 <= turn.rank <= broadcast.spec.rank:
            raise LocalProtocolError(f"rank {turn.rank} is not in 1…{broadcast.spec.rank}")
        return turn.rank

    def _start(self, broadcast: Adapter, chosen: tuple[int, ...], round: int) -> LocalStart:
        rest = tuple(j for j in range(broadcast.spec.rank) if j not in set(chosen))
        return LocalStart(
            broadcast,
            modules.select(broadcast, chosen),
            modules.select(broadcast, rest) if rest else None,
            chosen,
            self.factors(round),
        )


class SummedMethod(Method):
    """A method whose coordinator needs only weighted means.

    As it stands here: average the trained factors' change, Δ = Σ pᵢ(xᵢ − x₀), and add it to the
    broadcast x₀. Changes are small, which clipping and fixed point want.
    """

    def carried(self, round: int) -> Factors:
        """Return the factors whose change is sent and summed: those that are trained."""
        return self.factors(round)

    def manifest(
        self, spec: AdapterSpec, round: int, exchange: int = 1, rank: int | None = None
    ) -> Manifest:
        """Name the tensors of an upload, at the broadcast's rank whatever the volunteer's."""
        return modules.factor_manifest(spec, self.carried(round).key)

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """Trained minus broadcast, on the factors of this round; zero on frozen modules."""
        change = local.whole(trained).vector - local.broadcast.vector
        return modules.restrict(
            change, local.broadcast.spec, self.manifest(local.broadcast.spec, round, exchange)
        )

    def clips(
        self, broadcast: Adapter, round: int, exchange: int, reach: float
    ) -> tuple[float, ...]:
        """A bound for the values of each tensor of manifest(), as masked sums need one.

        reach: how far training moves one value of a factor.
        """
        return (reach,) * len(self.manifest(broadcast.spec, round, exchange).tensors)

    def bounded(self, spec: AdapterSpec, round: int, exchange: int) -> int:
        """Count the leading coordinates of manifest() that a bound on norms is about."""
        return self.manifest(spec, round, exchange).size

    def fault_of_mean(self, spec: AdapterSpec, mean: Vector, round: int) -> str | None:
        """Say why no reports of volunteers' own software have this mean; None if some have."""
        return None

    def reply(
        self, state: MethodState, mean: Vector, round: int, exchange: int, run: Run = map
    ) -> Vector:
        """Return what volunteers get between two exchanges; only methods with several have one.

        run: how layers are worked on.
        """
        raise LocalProtocolError(f"{self.name} has no exchange after {exchange}")

    def update(self, state: MethodState, mean: Vector, round: int) -> Vector:
        """The mean update a server optimiser acts on, from the last exchange's mean."""
        return mean

    def commit(
        self,
        state: MethodState,
        update: Vector,
        round: int,
        reply: Vector | None = None,
        run: Run = map,
    ) -> MethodState:
        """The next state, from update() as the server optimiser left it and the last reply().

        run: how layers are worked on.
        """
        manifest = modules.factor_manifest(state.adapter.spec, self.carried(round).key)
        return replace(state, adapter=modules.add(state.adapter, update, manifest))


class PlaintextMethod(Method):
    """A method whose coordinator must see each volunteer's factors; never under masking."""

    def manifest(
        self, spec: AdapterSpec, round: int, exchange: int = 1, rank: int | None = None
    ) -> Manifest:
        """A and B of every layer at the volunteer's own rank."""
        return modules.same_scale(spec, spec.rank if rank is None else rank).manifest

    def upload(
        self,
        local: LocalStart,
        trained: Adapter,
        round: int,
        exchange: int = 1,
        reply: Vector | None = None,
    ) -> Vector:
        """The trained factors themselves."""
        if trained.spec != local.adapter.spec:
            raise LocalProtocolError("the trained adapter is not the one that was started from")
        return trained.vector.copy()

    def commit_each(
        self, state: MethodState, uploads: tuple[PlaintextReport, ...], round: int
    ) -> MethodState:
        """The next state from all reports of the round (in roster order, for equal bits)."""
        raise NotImplementedError
