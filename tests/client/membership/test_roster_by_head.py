"""An offer may name an earlier head of the roster; who is out by now does not take part by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from nomoat.aggregation.protocol import roster as log
from nomoat.aggregation.protocol.enrolment import bind
from nomoat.aggregation.protocol.history.key_changes import CommunityKeys
from nomoat.aggregation.protocol.roster import Event, Roster, SignedEntry
from nomoat.aggregation.protocol.signing import SigningKey
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint
from nomoat.client.membership.roster_cache import RosterCache
from nomoat.client.membership.roster_file import RosterFile

COMMUNITY = SigningKey(b"\7" * 32)
KEYS = [SigningKey(bytes([n + 1]) * 32) for n in range(3)]
NODES = [ec.derive_private_key(50 + n, ec.SECP384R1()) for n in range(3)]
BINDINGS = [bind(f"vol{n}", key, NODES[n], COMMUNITY.public) for n, key in enumerate(KEYS)]


@pytest.mark.parametrize("event", [Event.BAN, Event.HOLD, Event.LEAVE])
def test_no_earlier_head_brings_back_whoever_is_out(tmp_path: Path, event: Event) -> None:
    known, entries, heads = (
        Roster.empty(CommunityKeys(COMMUNITY.public)),
        list[SignedEntry](),
        list[bytes](),
    )
    for what, number in ((Event.JOIN, 0), (Event.JOIN, 1), (event, 1), (Event.JOIN, 2)):
        entries.append(log.append(known, what, BINDINGS[number], COMMUNITY, 1000))
        known = log.extend(known, entries[-1:])
        heads.append(known.head)
    file = RosterFile(tmp_path)
    file.append(entries, 1000.0)
    cache = RosterCache(file, CoordinatorClient(Endpoint("h", 1), KEYS[0], COMMUNITY.public))
    cache.refresh = lambda: known  # type: ignore[method-assign]  # nobody has joined since
    cache.select(heads[1])
    assert cache.current().root == heads[1]
    assert set(cache.current().names.values()) == {"vol0"}
    cache.select(heads[3])
    assert set(cache.current().names.values()) == {"vol0", "vol2"}
