"""The things a volunteer brings to a community: its folder, settings, keys and allowlist."""

from __future__ import annotations

from dataclasses import dataclass, field

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

    allowlist: of what looks secret in the data.
    """

    folder: CommunityFolder
    settings: VolunteerSettings
    coordinator: CoordinatorClient
    allowlist: Allowlist = field(default_factory=Allowlist)

    @classmethod
    def of(cls, home: Home, folder: CommunityFolder, settings: VolunteerSettings) -> Kit:
        """The kit of a community this machine has joined."""
        info = folder.info()
        endpoint = Endpoint.at(settings.address, ca=info.ca)
        coordinator = CoordinatorClient(endpoint, load_identity(home.identity), info.public)
        return cls(folder, settings, coordinator, secrets_allowlist.load(home.root))
