"""Agreeing to a new edition of a community's terms, and waiting for the owner's word until then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nomoat.aggregation.errors import NomoatError, RemoteProtocolError
from nomoat.aggregation.protocol.community.terms import TermsEdition
from nomoat.aggregation.protocol.enrolment import CommunityInfo
from nomoat.aggregation.protocol.wire import COORDINATOR
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.home import CommunityFolder
from nomoat.client.membership import agreement
from nomoat.client.membership.agreement import FILE, Agreement
from nomoat.client.membership.terms import questions
from nomoat.client.membership.terms.changes import TermsChange, changes, in_a_line

EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class AskedEdition:
    """An edition that is not the agreed one, and what it changes for this owner."""

    edition: TermsEdition
    found: tuple[TermsChange, ...]

    @property
    def asked(self) -> bool:
        """True if the owner has to agree before anything is trained."""
        return any(change.asked for change in self.found)

    @property
    def weakens(self) -> bool:
        """True if something of it is accepted by its own name."""
        return any(change.weakens for change in self.found)

    def line(self) -> str:
        """Say what changes."""
        return in_a_line(self.edition, self.found)


def asked_now(
    folder: CommunityFolder, coordinator: CoordinatorClient, fewest: int
) -> AskedEdition | None:
    """Ask for the edition that holds; None if it is the agreed one, or there are no editions.

    A community whose backup was put back may give a number again, to other terms: the time tells.
    fewest: as in `changes`.
    """
    edition = coordinator.checked(
        lambda keys: questions.edition(coordinator.endpoint, keys.current)
    )
    info = folder.info()
    agreed = agreement.load(folder.root, info)
    if edition is None or (edition.number, edition.at) == (agreed.edition, agreed.edition_at):
        return None
    return AskedEdition(edition, changes(agreed, info, edition, fewest))


def keep(folder: CommunityFolder, coordinator: CoordinatorClient, asked: AskedEdition) -> None:
    """Take an edition that asks for nothing beyond what was agreed to; the figures stay."""
    _tell(coordinator, asked)  # first: what was saved is not told again
    before, edition = agreement.load(folder.root, folder.info()), asked.edition
    kept = replace(before, edition=edition.number, edition_at=edition.at)
    agreement.save(folder.root, kept)


def renewed(folder: CommunityFolder, asked: AskedEdition) -> Agreement:
    """The agreement that agreeing to an edition makes."""
    before = agreement.load(folder.root, folder.info())
    edition = asked.edition
    new = before.renewed(edition.work, edition.number, edition.at)
    return replace(new, weak=before.weak or asked.weakens)


def agree(
    folder: CommunityFolder, coordinator: CoordinatorClient, asked: AskedEdition, new: Agreement
) -> None:
    """Agree to an edition: the figures of `new`, of `renewed`, are what binds from now on.

    The coordinator is told first: cut off in between, the owner is asked once more.
    """
    info = coordinator.described()
    if protects_less(info, asked.edition):
        reason = "describes itself with less protection than the terms it asks about"
        raise RemoteProtocolError(COORDINATOR, "§5.7", reason)
    _tell(coordinator, asked)
    folder.save_info(info)
    agreement.save(folder.root, new)


def protects_less(info: CommunityInfo, edition: TermsEdition) -> bool:
    """True if a community's description, which binds from now on, gives less than its terms."""
    return (
        info.min_participants < edition.least
        or info.secure < edition.secure
        or info.allow_weak > edition.allow_weak
    )


def _tell(coordinator: CoordinatorClient, asked: AskedEdition) -> None:
    questions.agree(coordinator, asked.edition.number, int(time.time()))


@dataclass
class TermsWatch:
    """Looks now and then at the terms that hold. say: the status's line while the owner is asked.

    renewed: called once when the owner has agreed. stamp: of what was agreed to, on disk.
    """

    folder: CommunityFolder
    ask: Callable[[], AskedEdition | None]
    take: Callable[[AskedEdition], None]
    say: Callable[[str | None], None]
    renewed: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    waiting: bool = field(default=False, init=False)
    _at: float = field(default=float("-inf"), init=False)
    _stamp: tuple[int, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Note what is agreed to now."""
        self._stamp = self._stamped()

    def look(self) -> None:
        """Begin anew once the owner has agreed; else ask for the terms, once a minute."""
        if self._stamped() != self._stamp:
            self._stamp = self._stamped()
            self.renewed()
            return
        if self.clock() - self._at < EVERY_S:
            return
        self._at = self.clock()
        try:
            self._heed(self.ask())
        except NomoatError:  # away, or it knows no editions: what was agreed to binds anyway
            return

    def _heed(self, asked: AskedEdition | None) -> None:
        self.waiting = asked is not None and asked.asked
        if asked is None or not self.waiting:
            self.say(None)
        else:
            self.say(f"{asked.line()}; nothing is trained before you agree: nomoat agree")
        if asked is not None and not self.waiting:
            self.take(asked)
            self._stamp = self._stamped()

    def _stamped(self) -> tuple[int, int] | None:
        try:
            found = (self.folder.root / FILE).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino
