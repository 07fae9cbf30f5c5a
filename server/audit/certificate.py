"""The server certificate, issued anew before it ends: at the start, and daily while it is shown."""

from __future__ import annotations

import datetime
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from nomoat.aggregation.errors import NomoatError
from nomoat.server.community.folder import renew_certificate
from nomoat.server.community.opened import OpenCommunity

log = logging.getLogger(__name__)

EVERY_S = 86_400.0


def utc_now() -> datetime.datetime:
    """Return the time of day, UTC."""
    return datetime.datetime.now(datetime.UTC)


class ShowsCertificate(Protocol):
    """Shows a certificate to new connections; an ssl.SSLContext, or several."""

    def load_cert_chain(self, certfile: Path, keyfile: Path) -> None:
        """Show the one in these files from now on."""


class CertificateRenewal(threading.Thread):
    """Looks once a day until `stop`; new connections are shown the new certificate at once."""

    def __init__(
        self,
        community: OpenCommunity,
        stop: threading.Event,
        clock: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        super().__init__(name="certificate", daemon=True)
        self._community = community
        self._ended = stop
        self._clock = clock
        self._context: ShowsCertificate | None = None

    def shown_by(self, context: ShowsCertificate) -> None:
        """Have its connections shown what is issued from now on."""
        self._context = context

    def run(self) -> None:
        """Wait, look, and wait again."""
        while not self._ended.wait(EVERY_S):
            try:
                self.look()
            except (NomoatError, OSError) as problem:  # there are 30 days to mend it in
                log.warning("the server certificate was not renewed: %s", problem)

    def look(self) -> None:
        """Issue a new certificate if the old one ends soon, or lacks a name."""
        folder = self._community.folder
        renewed = renew_certificate(folder, self._community.settings, self._clock())
        if renewed is None:
            return
        log.warning("a new server certificate was issued (the old one: %s)", renewed)
        if self._context is not None:
            self._context.load_cert_chain(folder.server_certificate, folder.server_key)
