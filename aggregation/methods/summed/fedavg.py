"""FedIT / FedAvg: average A and average B."""

from __future__ import annotations

from nomoat.aggregation.methods.base import SummedMethod, Traits


class FedAvg(SummedMethod):
    """A ← A + Σ pᵢΔAᵢ, B ← B + Σ pᵢΔBᵢ; B̄Ā differs from Σ pᵢBᵢAᵢ by the cross terms.

    With D = x − x̄: Σ pᵢBᵢAᵢ − B̄Ā = Σ pᵢ DBᵢ DAᵢ, second order in the drift, hence harmless for
    short local training from a common start. Volunteers of lower rank train the first modules.
    """

    name = "fedavg"
    summary = "average A and B; simple, biased by cross terms when volunteers drift"
    source = "Zhang et al. 2023, FedIT (arXiv:2305.05644)"
    traits = Traits(summable=True, mixed_ranks=True, exact=False, optimizers=True)
