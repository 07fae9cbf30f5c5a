"""The members that a porter knows: who has signed a request's head, before its body is read.

It may be behind by a moment. The round process judges each call again, so that this lets nobody in
or out: it says whose requests are counted with a stranger's, and whose bodies are not read at all.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol.enrolment import PROOF_HEADER, check_proof
from nomoat.server.fleet.node_signature import PROVEN_KEY, claimed_key, signed_just_now
from nomoat.server.port.request_limits import FLEET, Scope
from nomoat.server.porters.frames import MemberChanges


@dataclass
class MemberBook:
    """The members who may speak.

    founding: the community's first key, which proofs name. clock: unix time.
    """

    founding: bytes
    clock: Callable[[], float] = time.time
    _by_key: dict[bytes, tuple[str, bytes]] = field(default_factory=dict)
    _by_identity: dict[bytes, str] = field(default_factory=dict)

    def take(self, changes: MemberChanges) -> None:
        """Follow what the round process says."""
        for key in changes.gone:
            if (known := self._by_key.pop(key, None)) is not None:
                self._by_identity.pop(known[1], None)
        for key, name, identity in changes.came:
            self._by_key[key] = (name, identity)
            self._by_identity[identity] = name

    async def member(self, scope: Scope) -> str | None:
        """The member that a request's head proves to come from; its node key is noted."""
        heads = dict(scope["headers"])
        if not scope["path"].startswith(FLEET):
            return self._asker(scope, heads)
        key = claimed_key(heads)
        known = None if key is None else self._by_key.get(key)
        if key is None or known is None or not signed_just_now(heads, key):
            return None
        scope[PROVEN_KEY] = key
        return known[0]

    def _asker(self, scope: Scope, heads: dict[bytes, bytes]) -> str | None:
        proof = heads.get(PROOF_HEADER.encode())
        if proof is None or scope["path"] == "/enroll":
            return None
        query = scope.get("query_string", b"").decode("latin-1")
        target = f"{scope['method']} {scope['path']}" + (f"?{query}" if query else "")
        try:
            now = int(self.clock())
            asker = check_proof(proof.decode("latin-1"), self.founding, target, now)
        except RemoteProtocolError:
            return None
        return self._by_identity.get(asker)
