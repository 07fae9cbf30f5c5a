"""A coordinator's community: every signed version there is."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nomoat.aggregation.errors import UsageError
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.lineage import SignedVersion
from nomoat.server.community.opened import OpenCommunity, card
from nomoat.server.release.releasing import newest_released
from nomoat.server.rounds.records import RoundRecord
from nomoat.serving.sources.source import (
    BASE,
    COMMUNITY,
    NUMBERED,
    BaseRef,
    UnknownVoice,
)

MOST_LISTED: Final = 50  # versions named in a list; older ones can be asked for all the same


@dataclass(frozen=True)
class CoordinatorsCommunity:
    """The versions in a community's folder; a version that is added is there at once."""

    opened: OpenCommunity

    @property
    def title(self) -> str:
        """The community's name."""
        return self.opened.settings.community.name

    @property
    def base(self) -> BaseRef:
        """As community.toml has it."""
        base = self.opened.settings.base
        return BaseRef(str(base.folder), base.model, bytes.fromhex(base.hash), base.license)

    def voices(self) -> tuple[str, ...]:
        """The newest MOST_LISTED versions, the newest first."""
        newest = self.opened.versions.get(None).version.number
        oldest = max(0, newest - MOST_LISTED + 1)
        numbered = (f"{COMMUNITY}@{n}" for n in range(newest, oldest - 1, -1))
        return (BASE, COMMUNITY, *numbered)

    def exact(self, voice: str) -> str:
        """The numbered name; UnknownVoice if there is no such version."""
        if voice == BASE:
            return voice
        return f"{COMMUNITY}@{self.record(voice).version.number}"

    def load(self, voice: str) -> Adapter:
        """The version's adapter; NomoatError if its file is gone or altered."""
        return self.opened.versions.load(self.record(voice))

    def card(self, voice: str) -> str:
        """The version's origin in words."""
        return card(self.opened, self.record(voice))

    def losses(self, voice: str) -> Mapping[str, float]:
        """As its record has them."""
        return record_losses(self.record(voice))

    def by_volunteer(self, voice: str) -> Mapping[str, float]:
        """As the newest round that measured this adapter has them."""
        wanted = self.record(voice).version.adapter.hex()
        rounds = self.opened.versions.database.rounds()
        for record in map(RoundRecord.from_json, map(json.loads, reversed(rounds))):
            if record.adapter == wanted and record.losses:
                return record.losses
        return {}

    def record(self, voice: str) -> SignedVersion:
        """The signed record of a version; UnknownVoice if there is no such one."""
        numbered = NUMBERED.fullmatch(voice)
        if voice != COMMUNITY and numbered is None:
            raise UnknownVoice(voice, self.voices())
        try:
            if numbered is None:
                return newest_released(self.opened, int(time.time()))
            return self.opened.versions.get(int(numbered[1]))
        except UsageError:
            raise UnknownVoice(voice, self.voices()) from None


def record_losses(record: SignedVersion) -> Mapping[str, float]:
    """The losses in a version's record."""
    version = record.version
    named = {
        "held-out loss": version.loss,
        "held-out loss of the version before": version.parent_loss,
        "loss on the community's own rows": version.evaluation,
    }
    return {name: value for name, value in named.items() if value is not None}
