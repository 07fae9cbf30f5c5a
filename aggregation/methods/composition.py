"""Choices that go together: method, masks, ranks, optimisers, personalisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nomoat.aggregation import methods
from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.methods import server_optimizer
from nomoat.aggregation.methods.base import PlaintextMethod, SummedMethod
from nomoat.aggregation.methods.plaintext.stacking import MAX_GROWN_RANK
from nomoat.aggregation.methods.server_optimizer import ServerOptimizer
from nomoat.aggregation.methods.summed.local_b import LocalB

Personal = Literal["none", "local-B", "adapter"]


@dataclass(frozen=True, slots=True)
class Choices:
    """The way of aggregating that was asked for; `check` says if it can be.

    mixed_ranks: some volunteers train fewer modules than the community adapter has; not known
    where volunteers choose their ranks themselves, when the round refuses them one by one.
    keep_moments: volunteers carry their AdamW moments from round to round.
    personal: what of a volunteer's own stays with it: its B, or an adapter of its own.
    rank: of the community adapter. audit: sizes of masked updates are audited. robust:
    part of the volunteers that may lie, borne by a mean without masks; 0: a stock mean.
    sessions: the most masked sums in one round.
    """

    method: str
    secure: bool = True
    mixed_ranks: bool = False
    optimizer: ServerOptimizer = field(default_factory=ServerOptimizer)
    keep_moments: bool = False
    personal: Personal = "none"
    rank: int = 1
    audit: bool = False
    robust: float = 0.0
    sessions: int = 1

    def check(self) -> methods.AnyMethod:
        """The method to run; UsageError, in one line that names what can, if it cannot be."""
        found = methods.require(
            self.method,
            secure=self.secure,
            mixed_ranks=self.mixed_ranks,
            optimizer=self.optimizer.has_memory,
            steady=self.keep_moments,
        )
        self._check_robust(found)
        self._check_sessions(found)
        if isinstance(found, PlaintextMethod) and self.optimizer != ServerOptimizer():
            raise UsageError(
                f"{self.method} makes no mean update for a server optimiser or its learning rate "
                f"to act on; {', '.join(methods.able(summable=True))} do"
            )
        if isinstance(found, SummedMethod):
            server_optimizer.check(self.optimizer, found)
        if self.keep_moments and self.mixed_ranks and self.method == "fedplora":
            raise UsageError(
                "fedplora draws other modules for a lower rank in every round, so its moments "
                f"cannot be kept; {self._others(mixed_ranks=True, steady=True)} can"
            )
        if self.audit and self.secure and not found.traits.uniform:
            raise UsageError(
                "an audit measures updates whose values have one bound, which those of "
                f"{self.method} have not; {self._others(uniform=True)} can be audited"
            )
        if found.traits.grows and self.rank > MAX_GROWN_RANK:
            raise UsageError(
                f"{self.method} keeps what it adds beside the adapter, which leaves room for a "
                f"rank of at most {MAX_GROWN_RANK}; {self._others(grows=False)} can do {self.rank}"
            )
        if self.personal == "local-B":
            return self._local_b()
        return found

    def _check_robust(self, found: methods.AnyMethod) -> None:
        if self.robust and self.secure:
            raise UsageError(
                "a robust mean looks at single updates, which masks hide: secure = false "
                "(--no-secure), or audit = true for the sizes under masks"
            )
        if self.robust and isinstance(found, PlaintextMethod):
            raise UsageError(
                f"{self.method} takes no mean; with a robust one: "
                f"{', '.join(methods.able(summable=True))}"
            )

    def _check_sessions(self, found: methods.AnyMethod) -> None:
        if self.sessions > 1 and not self.secure:
            raise UsageError(
                "several sums in a round tell apart what masks hide: secure = true (with masks)"
            )
        if self.sessions > 1 and found.traits.exchanges > 1:
            raise UsageError(
                f"{self.method} sums an update more than once, always among the same volunteers: "
                f"sessions = 1, or one of {', '.join(methods.able(summable=True, exchanges=1))}"
            )

    def _others(self, **traits: bool) -> str:
        """Names of the other methods with these traits, under masks if they are asked for."""
        if self.secure:
            traits["summable"] = True
        return ", ".join(name for name in methods.able(**traits) if name != self.method)

    def _local_b(self) -> methods.AnyMethod:
        if self.method != "fedavg":
            raise UsageError(
                f"local-B averages A and leaves B at home, which {self.method} has no place for; "
                "fedavg can"
            )
        if self.mixed_ranks:
            raise UsageError(
                "local-B needs equal ranks, since everyone trains every row of A; "
                "--personal adapter can mix them"
            )
        return LocalB()
