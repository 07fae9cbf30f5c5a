"""The things a volunteer brings to a community: its folder, settings, keys and allowlist."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from nomoat.client import settings as settings_file
from nomoat.client.connection import known_addresses
from nomoat.client.connection.address_watch import AddressWatch
from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.rate_cap import RateCap
from nomoat.client.data import secrets_allowlist
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.membership.joining import coordinator_of
from nomoat.client.membership.recovery.giving_back import offer
from nomoat.client.settings import VolunteerSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kit:
    """One community's folder, what its owner has set, and a client of its coordinator.

    kept: gives the owner's allowlist, as it is now, of what looks secret in the data.
    """

    folder: CommunityFolder
    settings: VolunteerSettings
    coordinator: CoordinatorClient
    kept: Callable[[], Allowlist] = Allowlist

    @classmethod
    def of(cls, home: Home, folder: CommunityFolder, settings: VolunteerSettings) -> Kit:
        """The kit of a community this machine has joined."""
        coordinator = coordinator_of(home, folder, settings.address, folder.info().ca)
        return cls(folder, settings, coordinator, partial(secrets_allowlist.load, home.root))

    def address_watch(self, anew: Callable[[], None]) -> AddressWatch:
        """Watch where the coordinator is. anew: has the volunteer begin again, somewhere else."""

        def move(place: str) -> None:
            if self.moved(place):
                anew()

        return AddressWatch(self.learn_addresses, self.elsewhere, move)

    def offered(self) -> str | None:
        """Give a coordinator that is being restored what it lacks; what its owner is told then."""
        cap = RateCap(self.settings.machine.upload_bytes_s)
        return offer(self.folder, self.coordinator, time.time, cap.keep)

    def learn_addresses(self) -> None:
        """Ask where else the community is reached, and keep what is new."""
        told = self.coordinator.checked(
            lambda keys: known_addresses.ask(self.coordinator.endpoint, keys.current)
        )
        before = known_addresses.load(self.folder.root)
        if told is not None and (known := before.told(told)) != before:
            known_addresses.save(self.folder.root, known)

    def elsewhere(self) -> str | None:
        """Find an address it has told us of, and answers at; None if there is none."""
        places = known_addresses.load(self.folder.root).others(self.settings.address)
        return known_addresses.answering(places, self.folder.info().ca, self.coordinator)

    def moved(self, place: str) -> bool:
        """Name another address in the settings; False if the environment's is used all the same."""
        root, old = self.folder.root, self.settings.address
        known = known_addresses.load(root)
        known_addresses.save(root, replace(known, left=old, moved=time.time()))
        settings_file.move(self.folder.settings, place)
        log.warning("%s does not answer; the coordinator does at %s, as it announced", old, place)
        return self.folder.load().address == place
