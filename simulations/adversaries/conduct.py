"""A simulated community's memory of who was named by an audit, as a deployment's ledger has it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flwr.serverapp import Grid

from nomoat.server.conduct.rules import Strike, StrikeKind, judge
from nomoat.server.conduct.sizes import above
from nomoat.server.rounds.machines.evidence import RoundEvidence
from nomoat.server.rounds.ports import named_nodes
from nomoat.server.rounds.records import RoundRecord


class SimulatedConduct:
    """Asks nobody any more whom an audit has named. Silence and complaints are left to dropouts.

    history: the rounds of a run that is gone on with; sizes of those before are not known any more.
    """

    def __init__(self, history: Iterable[RoundRecord] = ()) -> None:
        self._out = {name for record in history for name in record.held}
        self._strikes: list[Strike] = []
        self._sizes: dict[str, list[float]] = defaultdict(list)

    def volunteers(self, grid: Grid) -> Mapping[str, int]:
        """The nodes of those who may take part, by name."""
        return {name: node for name, node in named_nodes(grid).items() if name not in self._out}

    def judge(self, number: int, evidence: RoundEvidence) -> dict[str, str]:
        """Judge an ended round; volunteer → reason of whoever is out from now on."""
        proven = [
            replace(one, wrong={n: w for n, w in one.wrong.items() if n in one.proofs})
            for one in evidence.sessions
        ]
        shown = RoundEvidence(tuple(replace(one, complaints={}) for one in proven))
        judged = judge(number, shown, self._strikes)
        self._strikes += [s for s in judged.strikes if s.kind is StrikeKind.PROVEN]
        out = {**self._above(evidence), **judged.held}
        self._out |= out.keys()
        return out

    def _above(self, evidence: RoundEvidence) -> dict[str, str]:
        found = {}
        for session in evidence.sessions:
            for name, size in session.sizes.items():
                self._sizes[name].append(size)
                if (excess := above(self._sizes[name])) is not None:
                    found[name] = str(excess)
        return found
