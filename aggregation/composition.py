"""What of a federation's choices go together: method, masks, ranks, optimisers, personalisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods.base import PlaintextMethod
from nomoat.aggregation.methods.local_b import LocalB
from nomoat.aggregation.server_optimizer import ServerOptimizer

Personal = Literal["none", "local-B", "adapter"]


@dataclass(frozen=True, slots=True)
class Choices:
    """How adapters are aggregated, as it was asked for.

    mixed_ranks: some volunteers train fewer modules than the community adapter has.
    keep_moments: volunteers carry their AdamW moments from round to round.
    personal: what of a volunteer's own stays with it: its B, or an adapter of its own.
    """

    method: str
    secure: bool = True
    mixed_ranks: bool = False
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    keep_moments: bool = False
    personal: Personal = "none"

    def check(self) -> methods.AnyMethod:
        """The method to run; UsageError, in one line that names what can, if it cannot be."""
        found = methods.require(
            self.method,
            secure=self.secure,
            mixed_ranks=self.mixed_ranks,
            optimizer=self.optimizer.has_memory,
            steady=self.keep_moments,
        )
        if isinstance(found, PlaintextMethod) and self.optimizer != ServerOptimizer():
            raise UsageError(
                f"{self.method} makes no mean update for a server optimiser or its learning rate "
                f"to act on; {', '.join(methods.able(summable=True))} do"
            )
        if self.keep_moments and self.mixed_ranks and self.method == "fedplora":
            raise UsageError(
                "fedplora draws other modules for a lower rank in every round, so its moments "
                "cannot be kept; use the optimiser state reset, or equal ranks"
            )
        if self.personal == "local-B":
            return self._local_b()
        return found

    def _local_b(self) -> methods.AnyMethod:
        if self.method != "fedavg":
            raise UsageError(
                f"local-B averages A and leaves B at home, which {self.method} has no place for; "
                "fedavg can"
            )
        if self.mixed_ranks:
            raise UsageError("local-B needs equal ranks: everyone trains every row of A")
        return LocalB()
