"""The owner's limits as they are in settings.toml now: an edit is followed without a restart."""

from __future__ import annotations

import logging
from dataclasses import replace

from nomoat.aggregation.errors import NomoatError
from nomoat.client.home import CommunityFolder
from nomoat.client.machine.governor import OwnerLimits
from nomoat.client.machine.limits_settings import MachineSettings

log = logging.getLogger(__name__)


def owner_limits(machine: MachineSettings, lots: bytes) -> OwnerLimits:
    """The limits that a running volunteer can follow."""
    return OwnerLimits(replace(machine.limits(), lots=lots), machine.cpu_share)


class LimitsWatch:
    """Looks at one community's settings.toml. lots: as in MachineLimits."""

    def __init__(self, folder: CommunityFolder, lots: bytes) -> None:
        self._folder, self._lots = folder, lots
        self._seen = stamp_of(folder)

    def __call__(self) -> OwnerLimits | None:
        """The limits if the file has changed since the last look and can be read, else None."""
        stamp = stamp_of(self._folder)
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            machine = self._folder.load().machine
        except NomoatError as problem:
            log.warning("%s; the limits of before stay in force", problem)
            return None
        log.info("limits were changed in %s", self._folder.settings)
        return owner_limits(machine, self._lots)


def stamp_of(folder: CommunityFolder) -> tuple[int, int] | None:
    """Return what changes when settings.toml is edited; None if it is not there."""
    try:
        found = folder.settings.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
