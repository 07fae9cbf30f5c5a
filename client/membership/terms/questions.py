"""Questions to a coordinator of a member that waits: which terms hold, and what is waited for."""

from __future__ import annotations

from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.community.presence import Presence
from nomoat.aggregation.protocol.community.terms import TermsEdition, check
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint, NotServed, call


def edition(endpoint: Endpoint, community: bytes) -> TermsEdition | None:
    """Fetch the edition of the terms that holds, checked; None from a coordinator without any."""
    try:
        answer = wire.Packet(call(endpoint, "GET", "/edition"))
    except NotServed:
        return None
    return check(wire.decode(answer, TermsEdition, COORDINATOR), community)


def agree(coordinator: CoordinatorClient, number: int, now: int) -> None:
    """Tell the coordinator that we agree to an edition of its terms."""
    coordinator.post(f"/agree?after={number}", now)


def waited_for(coordinator: CoordinatorClient, now: int) -> str | None:
    """Ask what the coordinator waits for, in words; None from one of before there was this."""
    try:
        answer = coordinator.get("/presence", now, 1 << 10)
    except NotServed:
        return None
    return wire.decode(wire.Packet(answer), Presence, COORDINATOR).in_words()
