"""addresses.rec: the addresses a community has told its members of, signed, and since when."""

from __future__ import annotations

from pathlib import Path

from nomoat.aggregation.errors import RemoteProtocolError
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.community.addresses import AddressStatement, check, sign
from nomoat.server.community import certificates
from nomoat.server.community.opened import OpenCommunity
from nomoat.storage.atomic import replacing

FILE = "addresses.rec"


def stated(community: OpenCommunity, now: int) -> AddressStatement:
    """Return the addresses that hold, signed; dated anew if they are others than before.

    now: unix time. A file that is lost or damaged is made again.
    """
    path, key = community.folder.root / FILE, community.registrar.key
    server = community.settings.server
    named = map(certificates.canonical, (server.address, *server.also))
    places = tuple(dict.fromkeys(named))
    before = _read(path, key.public)
    if before is not None and before.places == places:
        return before
    at = now if before is None else max(now, before.at + 1)  # members take later ones only
    statement = sign(at, places, key)
    with replacing(path) as file:
        file.write(wire.encode(statement).head)
    return statement


def _read(path: Path, public: bytes) -> AddressStatement | None:
    try:
        packet = wire.Packet(path.read_bytes())
        return check(wire.decode(packet, AddressStatement, str(path)), public)
    except (OSError, RemoteProtocolError):
        return None
