"""The findings of a run: its summary as one object, and the sentence a newcomer reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.lora.data.files.listing import names
from nomoat.server.rounds.records import personal_loss
from nomoat.simulations.baselines import Baselines
from nomoat.simulations.failures import failures
from nomoat.simulations.population import MIN_ROWS, Population
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
    warnings: tuple[str, ...] = ()  # of rows that are cut

    @property
    def base_loss(self) -> float | None:
        """Macro held-out loss before any training; None if it could not be measured."""
        return _loss(self.records[0])

    @property
    def community_loss(self) -> float | None:
        """Macro held-out loss of the adapter that stands."""
        return _loss(self.records[-1])

    @property
    def committed(self) -> bool:
        """At least one round changed the adapter."""
        return any(record["committed"] for record in self.records[1:])

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
            **self._traffic(rounds),
            "seconds": round(self.seconds, 3),
            "overhead_ratio": round(self.seconds / max(self.busy_seconds, 1e-9), 4),
            "losses": {
                "base": self.records[0]["losses"],
                "community": self.records[-1]["losses"],
            },
            "failures": failures(self.records),
            **self._rows(),
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

    def _traffic(self, rounds: list[dict[str, Any]]) -> dict[str, int]:
        reports = sum(len(record["contributors"]) for record in rounds)
        volunteers = len(self.population.members)  # everyone evaluates, whoever trains
        up, down = (sum(record[way] for record in rounds) for way in ("bytes_up", "bytes_down"))
        return {
            "bytes_up_per_volunteer_per_round": round(up / reports) if reports else 0,
            "bytes_down_per_volunteer_per_round": round(down / (len(rounds) * volunteers)),
        }

    def _rows(self) -> dict[str, Any]:
        """Tell what became of every row that was read."""
        found = self.population
        dropped = (*found.dropped, *found.set_aside)
        return {
            "seq_len": self.scenario.seq_len,
            "rows": {
                "read": found.read,
                "trained": found.trained,
                "held_out": found.held_out,
                "dropped": sum(each.count for each in dropped),
            },
            "rows_dropped": [asdict(each) for each in dropped],
            "rows_ignored": [asdict(each) for each in found.ignored],
            "files_unread": [asdict(each) for each in found.unread],
            "warnings": list(self.warnings),
            "volunteers_too_small": found.too_small,
        }

    def _with_own(self) -> dict[str, Any]:
        nobody: dict[str, Any] = {"losses": {}, "personal": {}}
        return next((r for r in reversed(self.records) if r.get("personal")), nobody)

    def row_lines(self) -> list[str]:
        """Tell what became of the rows that were read, a line each."""
        found = self.population
        dropped = (*found.dropped, *found.set_aside)
        lost = sum(each.count for each in dropped)
        lines = [
            f"{found.read} read: {found.trained} to train on, {found.held_out} to measure with, "
            f"{lost} not used"
        ]
        lines += [f"{each.count}: {each.reason} (first: {each.first})" for each in dropped]
        lines += [f"ignored in {d.count}: {d.reason} (first: {d.first})" for d in found.ignored]
        lines += [f"not read: {line}" for line in names(found.unread)]
        if found.too_small:
            few = f"{found.too_small} of {found.too_small + len(found.members)} volunteers"
            lines.append(f"warning: {few} have fewer than {MIN_ROWS} rows and take no part")
        return [*lines, *(f"warning: {words}" for words in self.warnings)]

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
