"""The versions of the protocol that a side speaks, and the one that two sides use (§2.5).

    SpokenVersions(1, 2).common(SpokenVersions.read("2-4"))  # 2

Pure: each side tells its range (a header, a field of the community's description) and takes the
highest number in both. A version is here if this release keeps all of the promises with it: what
protects a volunteer is never a matter of the version that a peer says it speaks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nomoat.aggregation.protocol.wire import PROTOCOL_VERSION

_HEADER: Final = re.compile(r"([1-9][0-9]{0,2})(?:-([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class SpokenVersions:
    """All versions of the protocol from `low` to `high`; 1 <= low <= high <= 1000."""

    low: int
    high: int

    @classmethod
    def read(cls, header: str) -> SpokenVersions:
        """Read what a peer says: "2" or "1-3". Anything else, nothing too, is version 1 alone."""
        found = _HEADER.fullmatch(header)
        if found is None:
            return FIRST
        low = int(found[1])
        high = int(found[2] or low)
        return cls(low, high) if low <= high else FIRST

    @property
    def header(self) -> str:
        """The range as `read` reads it."""
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def common(self, others: SpokenVersions) -> int | None:
        """The highest version that both speak; None if there is none."""
        high = min(self.high, others.high)
        return high if high >= max(self.low, others.low) else None

    def __str__(self) -> str:
        """The range in words."""
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


FIRST: Final = SpokenVersions(1, 1)
OURS: Final = SpokenVersions(1, PROTOCOL_VERSION)
FIRST_RELEASE: Final[Mapping[int, str]] = {1: "0.1.0"}
"""The first release of nomoat that speaks a version."""


def newer_release(ours: SpokenVersions = OURS) -> str:
    """The release that whoever is too old for us has to install, in words."""
    return f"nomoat {FIRST_RELEASE.get(ours.low, 'of this side')} or later"


def in_words(header: str | None, ours: SpokenVersions = OURS) -> str:
    """Say which version is used with whoever said this, and which it speaks if others, too."""
    if header is None:
        return "not seen"
    theirs = SpokenVersions.read(header)
    used = theirs.common(ours)
    if used is None:
        return f"{theirs}: none of {ours}"
    return str(used) if theirs == ours else f"{used} of {theirs}"
