"""A simulated community's secrets, all drawn from its seed: keys, roster, everyone's randomness.

The protocol is the real one; only the randomness is not, so that a run can be repeated bit for
bit. There is nothing to hide on a machine that holds everybody's data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from nomoat.aggregation.protocol.messages import TrainTask
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.parameters import Policy, RosterView
from nomoat.client.round.masked_session import Membership
from nomoat.client.round.task_checks import seed_from_announced
from nomoat.server.rounds.cohort import round_seed, seed_of
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class SeededCommunity:
    """Everyone's signing key, the roster that lists them, and what each of them draws.

    federation_seed: 32 bytes, what the coordinator's draws come from.
    """

    seed: bytes
    federation_seed: bytes
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
        policy = Policy(min_participants=scenario.min_reports, allow_weak=True)
        federation_seed = seed_of(scenario.seed, "federation")
        return cls(seed, federation_seed, policy, keys, RosterView(root, listed))

    def membership(self, name: str) -> Membership:
        """The keys, roster, policy and randomness with which `name` is in a session."""
        entropy = partial(_derive, self.seed, name.encode())
        return Membership(self.keys[name], lambda: self.roster, self.policy, entropy)

    def session_id(self, round_number: int, exchange: int) -> bytes:
        """32 bytes that name one session."""
        return _derive(self.seed, b"session", f"{round_number}.{exchange}".encode())

    def training_seeds(self, name: str) -> Callable[[TrainTask], bytes]:
        """The source of all that `name` draws in a training: 32 bytes for each round."""

        def seed(task: TrainTask) -> bytes:
            drawn = round_seed(self.federation_seed, "train", task.round)
            return seed_from_announced(drawn, name, task.round)

        return seed


def _derive(seed: bytes, *labels: bytes) -> bytes:
    digests = (hashlib.sha256(label).digest() for label in labels)
    return hashlib.sha256(seed + b"".join(digests)).digest()
