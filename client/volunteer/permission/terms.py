"""The watch over a community's terms, put together for a volunteer."""

from __future__ import annotations

import logging
import threading

from nomoat.client.membership.terms import renewal
from nomoat.client.membership.terms.renewal import AskedEdition, TermsWatch
from nomoat.client.volunteer.kit import Kit
from nomoat.client.volunteer.status_writer import StatusWriter

log = logging.getLogger(__name__)


def terms_watch(kit: Kit, status: StatusWriter) -> TermsWatch:
    """Watch the terms of one community; `renewed` is for whoever starts the volunteer to set."""

    def take(asked: AskedEdition) -> None:
        if asked.found:
            log.info("%s: within what was agreed to", asked.line())
        renewal.keep(kit.folder, kit.coordinator, asked)

    fewest = kit.settings.min_participants
    return TermsWatch(
        kit.folder,
        lambda: renewal.asked_now(kit.folder, kit.coordinator, fewest),
        take,
        status.ask_owner,
    )


def renewing(terms: TermsWatch, stop: threading.Event) -> threading.Event:
    """Have the volunteer end once its owner has agreed to other terms; the event that says so."""
    agreed = threading.Event()

    def renewed() -> None:
        agreed.set()
        stop.set()

    terms.renewed = renewed
    return agreed
