"""The audit of a coordinator that is up: once a day, a piece now and then, told when it finds."""

from __future__ import annotations

import json
import logging
import threading
import time

from nomoat.aggregation.errors import NomoatError
from nomoat.server.audit.promises import audit
from nomoat.server.community.opened import OpenCommunity
from nomoat.storage.atomic import replacing

log = logging.getLogger(__name__)

FIRST_S, EVERY_S = 600.0, 86_400.0
PIECE_S = 0.2  # between two pieces: a thousand versions take minutes, and nobody notices
FILE = "verified.json"


class ScheduledAudit(threading.Thread):
    """Reads everything once a day until `stop`; faults are logged, the outcome is written down."""

    def __init__(self, community: OpenCommunity, stop: threading.Event) -> None:
        super().__init__(name="audit", daemon=True)
        self._community = community
        self._ended = stop

    def run(self) -> None:
        """Wait, look, and wait again."""
        pause = FIRST_S
        while not self._ended.wait(pause):
            try:
                self.look()
            except NomoatError as problem:
                log.warning("the community was not verified: %s", problem)
            except Exception:  # a bug in it must not end the coordinator
                log.exception("the community was not verified")
            pause = EVERY_S

    def look(self) -> None:
        """Go through everything once, unhurried."""
        faults = []
        for fault in audit(self._community):
            if fault is not None:
                log.warning("verify: %s", fault)
                faults.append(fault)
            if self._ended.wait(PIECE_S):
                return
        with replacing(self._community.folder.root / FILE) as file:
            file.write(json.dumps({"at": int(time.time()), "faults": faults}).encode())
