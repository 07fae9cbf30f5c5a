"""FFA-LoRA: A is frozen for good, only B is trained and averaged."""

from __future__ import annotations

from nomoat.aggregation.methods.base import Factors, SummedMethod, Traits


class Ffa(SummedMethod):
    """B ← B + Σ pᵢΔBᵢ with A as the first broadcast had it, so Σ pᵢBᵢA = B̄A exactly.

    Half the bytes of fedavg, but the row space is the random one of the start. Of lower ranks
    the paper says nothing; here they train the first columns of B, which keeps the sum exact.
    """

    name = "ffa"
    summary = "train and average B only, A stays as initialised; exact, half the bytes"
    source = "Sun et al. 2024, FFA-LoRA (arXiv:2403.12313)"
    traits = Traits(summable=True, mixed_ranks=True, exact=True, optimizers=True)

    def factors(self, round: int) -> Factors:
        """B, always."""
        return Factors(a=False, b=True)
