"""What a run found: its summary as one object, and the sentence a newcomer reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.server.rounds.records import personal_loss
from nomoat.simulations.baselines import Baselines
from nomoat.simulations.population import Population
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class Sample:
    """One held-out row: what was asked, what its author wrote, what base and community write."""

    volunteer: str
    prompt: str
    reference: str
    base: str
    community: str


@dataclass(frozen=True)
class Result:
    """Everything the report shows. `records` are the objects of metrics.jsonl.

    notes: sentences about the base model, for the card. undrawn: what of the report could not be
    made, and why; the adapter is whole all the same.
    """

    scenario: Scenario
    population: Population
    adapter: Adapter
    records: list[dict[str, Any]]
    baselines: Baselines | None
    samples: tuple[Sample, ...]
    seconds: float
    busy_seconds: float
    notes: tuple[str, ...] = ()
    undrawn: str = ""

    @property
    def base_loss(self) -> float | None:
        """Macro held-out loss before any training; None if it could not be measured."""
        return _loss(self.records[0])

    @property
    def community_loss(self) -> float | None:
        """Macro held-out loss of the adapter that stands."""
        return _loss(self.records[-1])

    @property
    def personal(self) -> dict[str, float]:
        """Held-out losses with what each volunteer keeps, of the last round that measured them."""
        return dict(self._with_own()["personal"])

    @property
    def personal_loss(self) -> float | None:
        """Macro average over everyone; who keeps nothing yet has the community's adapter."""
        record = self._with_own()
        return personal_loss(record["losses"], record["personal"])

    def summary(self) -> dict[str, Any]:
        """The object of summary.json."""
        rounds = self.records[1:]
        reports = sum(len(record["contributors"]) for record in rounds)
        volunteers = len(self.population.members)  # everyone evaluates, whoever trains
        found: dict[str, Any] = {
            "base": {"loss": self.base_loss},
            "community": {"loss": self.community_loss, "adapter": self.adapter.digest.hex()},
            "volunteers": len(self.population.members),
            "rounds": len(rounds),
            "rounds_committed": sum(record["committed"] for record in rounds),
            "method": self.scenario.method,
            "secure": self.scenario.secure,
            "rank": self.scenario.rank,
            "ranks": self.scenario.ranks,
            "server_optimizer": self.scenario.server_optimizer,
            "sessions": sorted({record["session"] for record in rounds}),
            "adapter_values": self.adapter.spec.size,
            "base_notes": list(self.notes),
            "bytes_up_per_volunteer_per_round": (
                round(sum(record["bytes_up"] for record in rounds) / reports) if reports else 0
            ),
            "bytes_down_per_volunteer_per_round": (
                round(sum(r["bytes_down"] for r in rounds) / (len(rounds) * volunteers))
            ),
            "seconds": round(self.seconds, 3),
            "overhead_ratio": round(self.seconds / max(self.busy_seconds, 1e-9), 4),
            "losses": {
                "base": self.records[0]["losses"],
                "community": self.records[-1]["losses"],
            },
            "rows_dropped": [
                {"reason": d.reason, "count": d.count, "first": d.first}
                for d in self.population.dropped
            ],
            "volunteers_too_small": self.population.too_small,
        }
        if self.scenario.personal != "none":
            found["personal"] = {
                "kind": self.scenario.personal,
                "loss": self.personal_loss,
                "losses": self.personal,
            }
        if self.baselines is not None:
            found["solo"] = {"loss": self.baselines.solo_mean, "losses": self.baselines.solo}
            found["pooled"] = {"loss": self.baselines.pooled}
        return found

    def _with_own(self) -> dict[str, Any]:
        nobody: dict[str, Any] = {"losses": {}, "personal": {}}
        return next((r for r in reversed(self.records) if r.get("personal")), nobody)

    def sentence(self) -> str:
        """One sentence that says what came out."""
        together, base = self.community_loss, self.base_loss
        if together is None or base is None:
            return "Nobody could measure the adapter, so there is nothing to say about it."
        numbers = f"Together: {together:.2f} (base model: {base:.2f}"
        if self.personal_loss is not None:
            numbers = f"{numbers}; each with its own part: {self.personal_loss:.2f}"
        if self.baselines is None:
            verb = "improved on" if together < base else "did not improve on"
            return (
                f"{numbers}, in nats per token; lower is better). The community adapter {verb} "
                "the base model on everyone's held-out rows."
            )
        solo, pooled = self.baselines.solo_mean, self.baselines.pooled
        verb = "beat" if together < solo else "did not beat"
        return (
            f"Alone: {solo:.2f}. {numbers}, all data in one place: {pooled:.2f}; nats per token, "
            f"lower is better). Training together {verb} training alone on everyone's held-out "
            "rows, and nobody's rows left their owner."
        )


def _loss(record: dict[str, Any]) -> float | None:
    loss = record["loss"]
    return None if loss is None else float(loss)
