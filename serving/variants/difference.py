"""The difference of two versions: layers that moved, losses, and answers side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nomoat.serving.variants.distance import LayerDistance
from nomoat.serving.variants.measuring import GroupLosses


@dataclass(frozen=True)
class VersionDifference:
    """All that was found; losses are nats per trained token, by the name of the adapter.

    volunteers: by volunteer, as their rounds measured both. groups: by value of a field of the
    rows, and by adapter.
    """

    layers: tuple[LayerDistance, ...]
    volunteers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, GroupLosses] = field(default_factory=dict)
    answers: tuple[Mapping[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """A JSON-able object."""
        return asdict(self)


def by_volunteer(
    first: tuple[str, Mapping[str, float]], second: tuple[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """Put two adapters' losses side by side for every volunteer that measured both.

    first, second: the adapter's name, and volunteer → loss.
    """
    (old, before), (new, after) = first, second
    return {name: {old: before[name], new: after[name]} for name in sorted(before) if name in after}
