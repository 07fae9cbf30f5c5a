"""A simulated community's secrets, all drawn from its seed: keys, roster, everyone's randomness.

The protocol is the real one; only the randomness is not, so that a run can be repeated bit for
bit. There is nothing to hide on a machine that holds everybody's data.
"""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nomoat.aggregation.protocol.envelope import NONCE_BYTES
from nomoat.aggregation.protocol.messages import TrainTask
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.audit.sketch import WORDS
from nomoat.aggregation.secagg.parameters import Policy, RosterView
from nomoat.client.round.masked_session import Membership
from nomoat.client.round.sealed_app import SealParties
from nomoat.client.round.training_origin import seed_from_announced
from nomoat.server.fleet.sealed_grid import CommunitySigner
from nomoat.server.rounds.cohort import round_seed, seed_of
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class SeededCommunity:
    """The community's and everyone's signing key, the roster, and what each of them draws.

    federation_seed: 32 bytes, what the coordinator's draws come from.
    """

    seed: bytes
    federation_seed: bytes
    key: SigningKey
    policy: Policy
    keys: dict[str, SigningKey]
    roster: RosterView

    @classmethod
    def of(cls, scenario: Scenario, names: Sequence[str]) -> SeededCommunity:
        """The community of a scenario's volunteers; small sessions are opted into."""
        seed = hashlib.sha256(f"nomoat community {scenario.seed}".encode()).digest()
        keys = {name: SigningKey(_derive(seed, b"identity", name.encode())) for name in names}
        listed = {key.public: name for name, key in keys.items()}
        root = hashlib.sha256(repr(sorted(listed.items())).encode()).digest()
        size, often = scenario.min_reports, sys.maxsize  # whoever sums holds all data anyway
        policy = Policy(min_participants=size, allow_weak=True, repeats=often, audit_words=WORDS)
        federation_seed = seed_of(scenario.seed, "federation")
        key = SigningKey(_derive(seed, b"community"))
        return cls(seed, federation_seed, key, policy, keys, RosterView(root, listed))

    def membership(self, name: str) -> Membership:
        """The keys, roster, policy and randomness with which `name` is in a session."""
        entropy = partial(_derive, self.seed, name.encode())
        return Membership(self.keys[name], lambda: self.roster, self.policy, entropy)

    def parties(self, name: str, base_hash: bytes) -> SealParties:
        """The identities between which the messages of `name` are sealed."""
        return SealParties(self.keys[name], self.key.public, base_hash)

    def signer(self, base_hash: bytes) -> CommunitySigner:
        """The community as the sender of messages; a nonce is the number of a request."""
        count = itertools.count()
        return CommunitySigner(
            self.key, base_hash, lambda: next(count).to_bytes(NONCE_BYTES, "big")
        )

    def session_id(self, round_number: int, exchange: int) -> bytes:
        """32 bytes that name one session."""
        return _derive(self.seed, b"session", f"{round_number}.{exchange}".encode())

    def training_seed(self, name: str, round_number: int) -> bytes:
        """32 bytes that all chance of `name`'s training in a round is drawn from."""
        drawn = round_seed(self.federation_seed, "train", round_number)
        return seed_from_announced(drawn, name, round_number)

    def training_seeds(self, name: str) -> Callable[[TrainTask], bytes]:
        """Return the function that gives `name`'s session the seed of a task's training."""
        return lambda task: self.training_seed(name, task.round)


def _derive(seed: bytes, *labels: bytes) -> bytes:
    digests = (hashlib.sha256(label).digest() for label in labels)
    return hashlib.sha256(seed + b"".join(digests)).digest()
