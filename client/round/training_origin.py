"""The things a volunteer itself knows of its training beforehand: its version, and its chance.

Neither is the coordinator's to choose: which version of the lineage an adapter is decides whether
it may be trained from at all (docs/protocol.md §19.2), and whoever knows the seed knows the order
of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from nomoat.aggregation.protocol.messages import TrainTask

# (digest of the adapter a task carries, its round) → the version it is, 32 bytes; None: over.
VersionOf: TypeAlias = Callable[[bytes, int], bytes | None]
# (digest of a candidate, its round) → whether it may be measured now.
IsPresent: TypeAlias = Callable[[bytes, int], bool]
SeedOf: TypeAlias = Callable[[TrainTask], bytes]  # → 32 bytes


def version_by_adapter(adapter: bytes, _round: int) -> bytes:
    """Take each adapter for a version of its own: nothing is trained from twice."""
    return adapter


def version_by_round(_adapter: bytes, round_number: int) -> bytes:
    """Take each round for a version of its own, where the coordinator may be believed."""
    return hashlib.sha256(b"nomoat round %d" % round_number).digest()


def always_present(_adapter: bytes, _round: int) -> bool:
    """Take every round for the present one, where the coordinator may be believed."""
    return True


def seed_from_announced(announced: bytes, name: str, round_number: int) -> bytes:
    """32 bytes for one volunteer's training in one round, from the seed announced to everyone."""
    label = b"nomoat volunteer\0" + round_number.to_bytes(4, "big")
    return hashlib.sha256(label + announced + name.encode()).digest()


def announced_seed(name: str, task: TrainTask) -> bytes:
    """The same for a task."""
    return seed_from_announced(task.seed, name, task.round)


@dataclass(frozen=True)
class TrainingOrigin:
    """seed_of: a task → the 32 bytes that all chance of its training is drawn from.

    version_of, is_present: what this machine itself knows of rounds and versions; both raise
    RemoteProtocolError for a round or an adapter that cannot be. signed: its versions are digests
    of the community's RoundEnds; all participants of a sum must have been shown the same.
    """

    seed_of: SeedOf
    version_of: VersionOf = version_by_adapter
    is_present: IsPresent = always_present
    signed: bool = False

    @classmethod
    def announced(cls, name: str, version_of: VersionOf = version_by_adapter) -> TrainingOrigin:
        """The origin of training whose chance a coordinator may choose."""
        return cls(partial(announced_seed, name), version_of)
