"""Gives a restored community back what it lost and this machine holds, piece by piece, when asked.

Nothing of this volunteer's own is in it: records, entries and adapters are the community's, signed
or named by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from nomoat.aggregation.errors import NomoatError, Unreachable
from nomoat.aggregation.protocol import wire
from nomoat.aggregation.protocol.history.recovery import WantedPieces
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import NotServed, one_connection
from nomoat.client.home import CommunityFolder
from nomoat.client.membership.recovery import held

log = logging.getLogger(__name__)

BEING_RESTORED = (
    "the community is being brought back from a backup; what this machine holds of it was offered"
)
MOST_PIECES = 6  # records, roster, an adapter that another began; then it is asked again later


def give_back(
    folder: CommunityFolder,
    coordinator: CoordinatorClient,
    now: Callable[[], float],
    sending: Callable[[int], None] = lambda _bytes: None,
) -> bool:
    """Tell what is held here and send what is wanted of it; True if nothing more is.

    sending: is told of bytes before they leave. NotServed if the coordinator asks for nothing;
    NomoatError if it is away, or refuses.
    """
    for _ in range(MOST_PIECES):
        told = wire.encode(held.holding(folder)).head
        answer = coordinator.post("/recovery", int(now()), told)
        wanted = wire.decode(wire.Packet(answer), WantedPieces, COORDINATOR)
        if wanted.nothing:
            return True
        send(folder, coordinator, wanted, now, sending)
    return False


def offer(
    folder: CommunityFolder,
    coordinator: CoordinatorClient,
    now: Callable[[], float],
    sending: Callable[[int], None],
) -> str | None:
    """Give back what is asked for, if anything is; the owner's line then, None if nothing is."""
    try:
        with one_connection():
            give_back(folder, coordinator, now, sending)
    except (NotServed, Unreachable):  # it is up as ever, or away
        return None
    except NomoatError as problem:
        log.warning("the coordinator is being restored, and refuses what is held here: %s", problem)
    return BEING_RESTORED


def send(
    folder: CommunityFolder,
    coordinator: CoordinatorClient,
    wanted: WantedPieces,
    now: Callable[[], float],
    sending: Callable[[int], None],
) -> None:
    """Send the pieces that are wanted and here."""

    def post(target: str, body: bytes) -> None:
        sending(len(body))
        coordinator.post(target, int(now()), body)

    if wanted.entries >= 0:
        page = held.entries(folder, wanted.entries)
        log.info("%d entries of the roster go back to the coordinator", len(page.entries))
        post("/recovery/roster", wire.encode(page).head)
    if wanted.versions and (lineage := held.records(folder, wanted.versions)) is not None:
        log.info("%d signed versions go back to the coordinator", len(lineage.records))
        post("/recovery/lineage", wire.encode(lineage).head)
    record = folder.version()
    if wanted.adapter and record is not None and record.version.adapter == wanted.adapter:
        log.info("the adapter of version %d goes back to the coordinator", record.version.number)
        try:
            for after, part in held.parts(folder.adapter(record), wanted.after):
                post(f"/recovery/adapter/{wanted.adapter.hex()}?after={after}", part)
        except OSError as problem:
            raise NomoatError(f"{folder.adapter(record)}: {problem.strerror}") from None
