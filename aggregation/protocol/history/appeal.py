"""An appeal: what a volunteer that is held or banned says to those who run its community."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from nomoat.aggregation.protocol import wire

MOST_CHARACTERS = 2000


@wire.message("appeal")
@dataclass(frozen=True, slots=True)
class Appeal:
    """Volunteer → coordinator, with proof of who asks (docs/protocol.md §20.9)."""

    text: Annotated[str, wire.Limit(1, MOST_CHARACTERS)]
