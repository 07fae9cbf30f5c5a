"""The things a volunteer brings to a community: its folder, settings, keys and allowlist."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from nomoat.client.connection.coordinator_api import CoordinatorClient
from nomoat.client.connection.https import Endpoint
from nomoat.client.data import secrets_allowlist
from nomoat.client.data.secrets_scan import Allowlist
from nomoat.client.home import CommunityFolder, Home
from nomoat.client.identity.keys import load_identity
from nomoat.client.settings import VolunteerSettings


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
        info = folder.info()
        endpoint = Endpoint.at(settings.address, ca=info.ca)
        coordinator = CoordinatorClient(endpoint, load_identity(home.identity), info.public)
        return cls(folder, settings, coordinator, partial(secrets_allowlist.load, home.root))
