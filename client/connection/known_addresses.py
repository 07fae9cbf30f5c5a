"""addresses.json: where else a community said it is reached, and the move that followed from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nomoat.aggregation.errors import NomoatError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.community.addresses import AddressStatement, check
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint, NotServed, call
from nomoat.client.connection.proxies import is_this_machine
from nomoat.storage.private import write_private

FILE = "addresses.json"
LIMIT = 4096


@dataclass(frozen=True, slots=True)
class KnownAddresses:
    """Addresses that a community's signature was on. at: unix time of the statement.

    left: the address this machine moved away from by itself, at moved; none before it did.
    """

    at: int = 0
    places: tuple[str, ...] = ()
    left: str = ""
    moved: float = 0.0

    def told(self, statement: AddressStatement) -> KnownAddresses:
        """Take a verified statement, unless it is no later than the one that is known."""
        if statement.at <= self.at:
            return self
        return replace(self, at=statement.at, places=statement.places)

    def others(self, address: str) -> tuple[str, ...]:
        """Return where to look when `address` does not answer.

        A loopback address is meant for the coordinator's own machine: nobody else looks there.
        """
        here = is_this_machine(_host(address))
        found = (place for place in self.places if place != address)
        return tuple(place for place in found if here or not is_this_machine(_host(place)))


def load(folder: Path) -> KnownAddresses:
    """Read what is known; of a missing or damaged file nothing, since it is told again."""
    try:
        found = json.loads((folder / FILE).read_bytes())
        return KnownAddresses(**{**found, "places": tuple(found["places"])})
    except (OSError, ValueError, TypeError, KeyError):
        return KnownAddresses()


def save(folder: Path, known: KnownAddresses) -> None:
    """Keep what is known."""
    write_private(folder / FILE, json.dumps(asdict(known)).encode())


def ask(endpoint: Endpoint, community: bytes) -> AddressStatement | None:
    """Fetch a community's addresses, checked against its key; nothing of ours is sent.

    None from a coordinator of a release before there was this.
    """
    try:
        answer = wire.Packet(call(endpoint, "GET", "/addresses", limit=LIMIT))
    except NotServed:
        return None
    return check(wire.decode(answer, AddressStatement, COORDINATOR), community)


def answering(places: tuple[str, ...], ca: bytes, coordinator: CoordinatorClient) -> str | None:
    """Return the first of `places` where the community itself answers, None if it does nowhere.

    Its certificate has to be its own authority's, and what it says under its own key.
    """
    for place in places:
        try:
            replace(coordinator, endpoint=Endpoint.at(place, ca=ca)).described()
        except NomoatError:  # silent, or somebody else's
            continue
        return place
    return None


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")
