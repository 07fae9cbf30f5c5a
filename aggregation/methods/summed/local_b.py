"""Personal B: A is averaged over the community, each volunteer's B never leaves its machine."""

from __future__ import annotations

from nomoat.aggregation.methods.base import Factors, SummedMethod, Traits

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

    def carried(self, round: int) -> Factors:
        """A alone; B stays with its volunteer."""
        return Factors(a=True, b=False)
