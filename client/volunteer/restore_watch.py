"""Asks a coordinator that admits nobody if it is being restored, and gives back what it lacks."""

from __future__ import annotations

import logging
import time

from nomoat.aggregation.errors import NomoatError, Unreachable
from nomoat.client.connection.https import NotServed, one_connection
from nomoat.client.connection.rate_cap import RateCap
from nomoat.client.membership.recovery.giving_back import give_back
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status_writer import StatusWriter

log = logging.getLogger(__name__)

BEING_RESTORED = (
    "the community is being brought back from a backup; what this machine holds of it was offered"
)


def look_for_a_restore(kit: Kit, status: StatusWriter) -> None:
    """Give back what is asked for, unless the line is up: then nothing is."""
    if status.up:
        return
    cap = RateCap(kit.settings.machine.upload_bytes_s)
    try:
        with one_connection():
            give_back(kit.folder, kit.coordinator, time.time, cap.keep)
    except (NotServed, Unreachable):  # it is up as ever, or away
        return
    except NomoatError as problem:
        log.warning("the coordinator is being restored, and refuses what is held here: %s", problem)
    status.say("connecting", BEING_RESTORED)
