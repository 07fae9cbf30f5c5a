"""RoLoRA: B in odd rounds, A in even rounds."""

from __future__ import annotations

from nomoat.aggregation.methods.base import Factors, SummedMethod, Traits


class RoLora(SummedMethod):
    """One factor moves while the other is common to all, so the average is exact in each round.

    Odd rounds: Σ pᵢBᵢA = B̄A. Even rounds: Σ pᵢBAᵢ = BĀ. Rounds count from 1; B comes first
    because with B = 0 the gradient of A is zero. Half the bytes of fedavg per round. The paper
    has equal ranks; here lower ranks train the first modules, which keeps the sum exact.
    """

    name = "rolora"
    summary = "alternate: B in odd rounds, A in even ones; exact, half the bytes"
    source = "Chen et al. 2025, RoLoRA (arXiv:2502.01755)"
    traits = Traits(summable=True, mixed_ranks=True, exact=True, optimizers=True)

    def factors(self, round: int) -> Factors:
        """B if the round's number is odd, else A."""
        return Factors(a=round % 2 == 0, b=round % 2 == 1)
