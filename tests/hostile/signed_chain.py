"""A community's signed versions and rounds, as a coordinator that holds its key can write them.

Each volunteer follows the chain by the very code of a deployment; what it is shown may be another
chain than the one its neighbour is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from nomoat.aggregation.errors import Unreachable
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.adapter import Adapter
from nomoat.aggregation.protocol.enrolment import community_id
from nomoat.aggregation.protocol.lineage import SignedVersion, Version, sign
from nomoat.aggregation.protocol.round_end import LineagePage, RoundEnd, sign_end
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.parameters import Policy
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint
from nomoat.client.membership.pinned_lineage import PinnedLineage
from nomoat.client.round.training_origin import TrainingOrigin
from tests.hostile.coordinator import BASE, Town

COMMUNITY = SigningKey(b"C" * 32)


@dataclass
class Chain:
    """Records and the end of the last round. key: whose signature they bear."""

    records: list[SignedVersion] = field(default_factory=list)
    ended: RoundEnd | None = None
    key: SigningKey = COMMUNITY

    def version(self, adapter: Adapter, number: int) -> None:
        """A version, committed in round `number`."""
        last = self.records[-1] if self.records else None
        parent = community_id(self.key.public) if last is None else last.digest
        made = Version(
            len(self.records), parent, adapter.digest, BASE, number, "fedavg", (), None, None, None,
            "", 1,
        )  # fmt: skip
        self.records.append(sign(made, self.key))
        self.end(number)

    def end(self, number: int) -> None:
        """The end of a round: with `version`, committed; alone, abandoned."""
        self.ended = sign_end(number, self.records[-1], self.key)

    def copy(self) -> Chain:
        """Another chain with the same past."""
        return Chain(list(self.records), self.ended, self.key)


@dataclass(frozen=True, slots=True)
class ChainServer(CoordinatorClient):
    """Answers a volunteer's questions for the lineage."""

    town: SignedTown | None = None
    name: str = ""

    def get(self, target: str, now: int, limit: int) -> bytes:
        """GET /lineage?after=N."""
        del now, limit
        assert self.town is not None
        if not self.town.answers:
            raise Unreachable("the coordinator does not answer")
        chain = self.town.shown.get(self.name, self.town.chain)
        after = int(parse_qs(urlsplit(target).query)["after"][0])
        assert chain.ended is not None
        return wire.encode(LineagePage(tuple(chain.records[after:]), chain.ended)).head


class SignedTown(Town):
    """Volunteers that follow the community's signed lineage. shown: another chain, for some."""

    def __init__(self, folder: Path, count: int, policy: Policy | None = None) -> None:
        self.chain, self.answers = Chain(), True
        self.shown: dict[str, Chain] = {}
        self.began: dict[int, bytes] = {}  # round → the digest of the RoundEnd it began after
        super().__init__(folder, count, policy)
        self.chain.version(self.start, 0)

    def train(self, number: int, *args: Any, **changes: Any) -> dict[str, Any]:
        """Announce a round; it begins after what the chain says then."""
        if self.chain.ended is not None:
            self.began[number] = self.chain.ended.digest
        return super().train(number, *args, **changes)

    def standing(self, number: int) -> bytes:
        """The digest of the RoundEnd that a round began after."""
        return self.began.get(number, bytes(32))

    def lineage(self, name: str) -> PinnedLineage:
        """What a volunteer has pinned, and whom it asks."""
        server = ChainServer(Endpoint("h", 1), self.keys[name], COMMUNITY.public, self, name)
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return PinnedLineage(self.folder / name, server)

    def restart(self, name: str) -> None:
        """A volunteer's process ends; another reads what it has left on disk."""
        super().restart(name)
        handler = self.volunteers[name]
        pinned = self.lineage(name)
        origin = TrainingOrigin(
            self.store(name).draw, pinned.version_of, pinned.is_present, signed=True
        )
        handler.session._origin = origin
        self.volunteers[name] = replace(handler)

    def begin_again(self, adapter: Adapter) -> None:
        """The rounds go on from another adapter, as after a commit of the present round."""
        assert self.chain.ended is not None
        self.chain.version(adapter, self.chain.ended.round + 1)
