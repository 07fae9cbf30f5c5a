"""The keys and the roster of a simulated community, all drawn from its seed.

The protocol is the real one; only the randomness is not, so that a run can be repeated bit for
bit. There is nothing to hide on a machine that holds everybody's data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.aggregation.secagg.parameters import Policy, Roster
from nomoat.client.round.masked_session import Membership
from nomoat.simulations.scenario import Scenario


@dataclass(frozen=True)
class Community:
    """Everyone's signing key and the roster that lists them."""

    seed: bytes
    policy: Policy
    keys: dict[str, SigningKey]
    roster: Roster

    @classmethod
    def of(cls, scenario: Scenario, names: Sequence[str]) -> Community:
        """The community of a scenario's volunteers; small sessions are opted into."""
        seed = hashlib.sha256(f"nomoat community {scenario.seed}".encode()).digest()
        keys = {name: SigningKey(_derive(seed, b"identity", name.encode())) for name in names}
        listed = {key.public: name for name, key in keys.items()}
        root = hashlib.sha256(repr(sorted(listed.items())).encode()).digest()
        policy = Policy(min_participants=scenario.min_reports, allow_weak=True)
        return cls(seed, policy, keys, Roster(root, listed))

    def membership(self, name: str) -> Membership:
        """What makes `name` a member."""
        entropy = partial(_derive, self.seed, name.encode())
        return Membership(self.keys[name], lambda: self.roster, self.policy, entropy)

    def session_id(self, round_number: int, exchange: int) -> bytes:
        """32 bytes that name one session."""
        return _derive(self.seed, b"session", f"{round_number}.{exchange}".encode())


def _derive(seed: bytes, *labels: bytes) -> bytes:
    digests = (hashlib.sha256(label).digest() for label in labels)
    return hashlib.sha256(seed + b"".join(digests)).digest()
