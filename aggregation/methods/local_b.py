"""Personal B: A is averaged over the community, each volunteer's B never leaves its machine."""

from __future__ import annotations

from nomoat.aggregation.adapter import Adapter, AdapterSpec, Manifest, Vector
from nomoat.aggregation.methods import modules
from nomoat.aggregation.methods.base import MethodState, SummedMethod, Traits
from nomoat.aggregation.parallel import Run

NAME = "local-B"


class LocalB(SummedMethod):
    """A ← A + Σ pᵢΔAᵢ; both factors are trained, and a volunteer goes on with its own B.

    The community adapter keeps the B it began with (zero, so it equals the base model): what
    matters is each volunteer's model, the common A with its own B. Half the bytes of fedavg. It is
    a choice beside the methods (`personal`), not one of them: nobody can use the result alone.
    """

    name = NAME
    summary = "average A, each volunteer keeps its own B; a personal model for everyone"
    source = "Guo et al. 2024, FedSA-LoRA (arXiv:2410.01463), §3"
    traits = Traits(summable=True, mixed_ranks=False, exact=False, optimizers=True)

    def manifest(
        self, spec: AdapterSpec, round: int, exchange: int = 1, rank: int | None = None
    ) -> Manifest:
        """A of every layer."""
        return modules.factor_manifest(spec, "a")

    def commit(
        self,
        state: MethodState,
        update: Vector,
        round: int,
        reply: Vector | None = None,
        run: Run = map,
    ) -> MethodState:
        """Add the mean change of A."""
        spec = state.adapter.spec
        change = modules.embed(update, modules.factor_manifest(spec, "a"), spec)
        return MethodState(Adapter(spec, state.adapter.vector + change), state.rank, state.kept)
