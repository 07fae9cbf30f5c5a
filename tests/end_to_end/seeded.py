"""`nomoat` on a machine whose own randomness is a simulation's: python seeded.py COMMAND…

The order of the rows, which of them are trained on, and how a masked update is rounded are chance
that a volunteer draws from its operating system. Here it draws what a simulation with the seed SEED
and the volunteers NAMES would.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from nomoat.aggregation.secagg.messages import SessionOffer
from nomoat.aggregation.secagg.parameters import Terms
from nomoat.client.round.masked_session import MaskedSession
from nomoat.client.round.session import RoundSession
from nomoat.simulations.scenario import Scenario
from nomoat.simulations.seeded_community import SeededCommunity

COMMUNITY = SeededCommunity.of(
    Scenario(seed=int(os.environ["SEED"])), os.environ["NAMES"].split(",")
)


def draw_as_simulated() -> None:
    honest = MaskedSession.open

    def seeded(self: MaskedSession, offer: SessionOffer, terms: Terms, *update: Any) -> Any:
        name = terms.roster.names[self.membership.identity.public]
        entropy = COMMUNITY.membership(name).entropy
        simulated = COMMUNITY.session_id(terms.round, terms.exchange)
        self.membership = replace(self.membership, entropy=lambda _offered: entropy(simulated))
        return honest(self, offer, terms, *update)

    MaskedSession.open = seeded  # type: ignore[method-assign]
    begin = RoundSession.__init__

    def begun(self: RoundSession, name: str, *given: Any) -> None:
        begin(self, name, *given)
        self._origin = replace(self._origin, seed_of=COMMUNITY.training_seeds(name))

    RoundSession.__init__ = begun  # type: ignore[method-assign]


if __name__ == "__main__":
    draw_as_simulated()
    from nomoat.__main__ import main

    main()
