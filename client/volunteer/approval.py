"""Waiting for a coordinator's approval: asks where this volunteer stands, and says so."""

from __future__ import annotations

import threading

from nomoat.aggregation.errors import Refused, Unreachable
from nomoat.aggregation.protocol.enrolment import Standing
from nomoat.client.connection import coordinator_api
from nomoat.client.identity.keys import node_key
from nomoat.client.membership.joining import logged
from nomoat.client.membership.standing import explained
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status_writer import StatusWriter

ASK_AGAIN_S = 15.0
HELD_AGAIN_S = 120.0  # a hold is rarely over soon, and each question is a line of the log


def wait_for_approval(kit: Kit, status: StatusWriter, stop: threading.Event) -> None:
    """Find out why we are not admitted; wait while that can change, else raise Refused."""
    key = node_key(kit.folder.node_key)
    leaving = logged(kit.folder, kit.settings.address)
    try:
        standing, reason = coordinator_api.enrol(
            kit.coordinator, kit.settings.name, key, b"", leaving
        )
    except Unreachable:
        stop.wait(ASK_AGAIN_S)
        return
    if standing is Standing.APPROVED:
        stop.wait(1.0)  # approved in between
        return
    told = explained(standing, reason)
    if standing in (Standing.PENDING, Standing.HELD):
        status.refuse(f"{told}; waiting")
        stop.wait(HELD_AGAIN_S if standing is Standing.HELD else ASK_AGAIN_S)
        return
    status.refuse(told)
    because = f": {reason}" if reason else ""
    raise Refused(f"{kit.folder.name()} has this volunteer as {standing.value}{because}")
